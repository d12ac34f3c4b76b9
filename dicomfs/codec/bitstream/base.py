"""What every reversible reading of a codestream offers, and the numbers under which methods are stored.

A *reading* of a codestream is the raw bytes of its frame and a *recipe*: whatever else is needed to write
the same codestream again.  A reading counts only where writing gives back every byte (`registry.read`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dicomfs.codec.base import join_streams, put_varint, split_streams
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout


class Method(enum.IntEnum):
    """How a codestream is made from its source.  Stored in packs: never renumbered, never reused."""

    JPEG_LOSSLESS = 1
    JPEG_LS = 2
    RLE = 3
    JPEG_TRANSCODED = 16
    """Numbers from 16 on have a stream as their source instead of a frame."""

    @property
    def from_frame(self) -> bool:
        """Whether the source is a frame."""
        return self < 16


@dataclass(frozen=True, slots=True)
class Reading:
    """A codestream as samples: what `FrameBitstream.read` makes and ``write`` undoes."""

    layout: PixelLayout
    raw: bytes
    """The frame, ``layout.frame_bytes`` bytes, little-endian words."""
    recipe: bytes


class FrameBitstream(Protocol):
    """Reads codestreams of one kind as frames and writes them again."""

    def read(self, data: bytes, hint: PixelLayout) -> Reading:
        """Samples and recipe; ``hint`` is what the attributes of the file say, and may be wrong.

        Raises:
            CodecError: it is damaged, or of a sort that has no reading.
        """

    def write(self, raw: bytes, layout: PixelLayout, recipe: bytes) -> bytes:
        """The codestream of these samples.

        Raises:
            CodecError: recipe and samples do not fit each other.
        """


def put_parts(flags: int, parts: Sequence[bytes]) -> bytes:
    """A recipe: a byte of flags, the number of parts, their lengths (LEB128 each), the parts."""
    return bytes([flags]) + put_varint(len(parts)) + join_streams(parts)


def take_parts(codec: str, recipe: bytes, limit: int) -> tuple[int, list[bytes]]:
    """Undo `put_parts` for at most ``limit`` parts; raises `CodecError`."""
    if len(recipe) < 2:
        raise CodecError(codec, "the recipe is cut off")
    count, position = take_varint(codec, recipe, 1)
    if count > limit:
        raise CodecError(codec, "the recipe is damaged")
    return recipe[0], [bytes(part) for part in split_streams(codec, memoryview(recipe)[position:], count)]


def take_varint(codec: str, data: bytes, position: int) -> tuple[int, int]:
    """The LEB128 number at ``position`` and where it ends; raises `CodecError`."""
    value = shift = 0
    while position < len(data) and shift <= 35:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise CodecError(codec, "a number is damaged")
