"""What every frame codec offers, and the ids under which codecs are stored.

Owns the protocol, the stable on-disk ids and the framing of a list of streams that several codecs share.
Does not choose between codecs (``trial``) and knows nothing of raw pixel bytes (``planes``, ``segment``).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dicomfs.errors import CodecError

Planes = npt.NDArray[np.unsignedinteger[Any]]
"""Samples of a band: (frames, rows, columns) or (frames, rows, columns, samples), C-contiguous, unsigned."""


class CodecId(enum.IntEnum):
    """Codecs as the code names them."""

    RAW = enum.auto()
    ZSTD = enum.auto()
    JPEGLS = enum.auto()
    JPEGXL = enum.auto()
    FFV1 = enum.auto()
    HEVC = enum.auto()
    FAST = enum.auto()
    DENSE = enum.auto()


# The bytes that stand for a codec in packs (docs/format.md). They are never renumbered and never reused:
# a codec that goes away leaves a hole. 6 is kept for H.264 lossless.
ON_DISK: dict[CodecId, int] = {
    CodecId.RAW: 0,
    CodecId.ZSTD: 1,
    CodecId.JPEGLS: 2,
    CodecId.JPEGXL: 3,
    CodecId.FFV1: 4,
    CodecId.HEVC: 5,
    CodecId.FAST: 7,
    CodecId.DENSE: 8,
}
FROM_DISK: dict[int, CodecId] = {number: codec for codec, number in ON_DISK.items()}


def at_level(name: str, level: int) -> str:
    """What reports call a codec that is used at a level."""
    return f"{name} level {level}" if level else name


class Profile(enum.Enum):
    """What matters for the place where an object lies."""

    FAST = "fast"
    DENSE = "dense"
    ARCHIVE = "archive"


EFFORT_FAST = 3
EFFORT_DENSE = 7
EFFORT_ARCHIVE = 9
"""Effort runs from 1 (quick) to 9 (dense); every codec maps it to its own settings."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to code: matters to the encoder only, for every payload decodes without it."""

    effort: int = EFFORT_FAST
    level: int = 0
    """Of a codec that has levels: higher ones are smaller and slower on both ways."""
    references: tuple[int, ...] = (1, 2)
    """Distances, in frames, back to the frames that predict, for codecs that can use any."""


class FrameCodec(Protocol):
    """Codes the sample planes of one band without loss."""

    @property
    def name(self) -> str:
        """Name in logs, reports and errors."""

    @property
    def id(self) -> CodecId:
        """Which codec this is."""

    @property
    def random_access(self) -> bool:
        """Whether single frames of a band decode without the others."""

    def unavailable(self) -> str:
        """Return why the codec cannot be used on this machine, or an empty string."""

    def supports(self, planes: Planes, bits: int) -> bool:
        """Say whether ``encode`` may take these planes; it can still refuse them."""

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:
        """Code ``planes``, whose samples are below ``2**bits``; raises `CodecError`."""

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Yield the ``wanted`` frames of a band of ``shape``, in rising order, each as soon as it is done.

        A frame comes with its number, as an array of ``shape[1:]``.  Raises `CodecError` for a payload that
        is damaged or of another shape, at the latest when the frame that suffers from it is asked for.
        """


def put_varint(value: int) -> bytes:
    """Code a number of at least 0 as LEB128: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def join_streams(streams: Sequence[bytes]) -> bytes:
    """Frame streams as all lengths (LEB128 each), then all streams."""
    return b"".join([*(put_varint(len(stream)) for stream in streams), *streams])


def split_streams(codec: str, payload: memoryview, count: int) -> list[memoryview]:
    """Undo `join_streams` for ``count`` streams without copying; raises `CodecError`."""
    lengths, position = [], 0
    for _ in range(count):
        value = shift = 0
        while True:
            if position >= len(payload) or shift > 35:
                raise CodecError(codec, "the table of stream lengths is damaged")
            byte = payload[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(value)
    if position + sum(lengths) != len(payload):
        raise CodecError(codec, "the stream lengths do not add up to the payload")
    streams = []
    for length in lengths:
        streams.append(payload[position : position + length])
        position += length
    return streams
