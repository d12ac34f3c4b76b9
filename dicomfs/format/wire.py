"""msgpack through msgspec: the only encoder and decoder of structured payloads.

Owns the translation of msgspec's errors and the description in front of a segment, chunk or header block
(u32 length, msgpack), which can be read without the bytes behind it.
"""

from __future__ import annotations

import struct
import threading
from typing import TypeVar

import msgspec

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.compression import compress_if_smaller
from dicomfs.format.framing import Read, SectionHeader, SectionWriter, read_exactly
from dicomfs.format.version import COMPRESSION_NONE, COMPRESSION_ZSTD, MAX_DESCRIPTION, MAX_INDEX

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
DESCRIPTION_PREFIX = _LENGTH.size
_decoders: dict[object, msgspec.msgpack.Decoder[object]] = {}
_making = threading.Lock()
"""msgspec works out what a structure looks like on its first use; two threads doing so at once end in a
segmentation fault."""


def encode_wire(value: object) -> bytes:
    """The msgpack form of a wire structure; FormatError for text or numbers that msgpack can't hold."""
    try:
        return msgspec.msgpack.encode(value)
    except (UnicodeEncodeError, OverflowError) as error:
        raise FormatError("object being written", "a value can't be stored") from error


def decode_wire(data: bytes, kind: type[T], artefact: str) -> T:
    """A validated wire structure; DamagedError for bytes that are none.

    MemoryError is translated too: an array may declare up to 2**32 elements in five bytes.
    """
    decoder = _decoders.get(kind) or _make_decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[return-value]  # the decoder was made for kind
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise DamagedError(artefact, "structured payload can't be decoded") from error


def _make_decoder(kind: type[object]) -> msgspec.msgpack.Decoder[object]:
    with _making:
        return _decoders.setdefault(kind, msgspec.msgpack.Decoder(kind))


def pack_section(writer: SectionWriter, kind: int, plain: bytes, level: int) -> None:
    """Append a section of structured payload, compressed when that gains."""
    if len(plain) > MAX_INDEX:
        raise FormatError("object being written", f"structured payload of {len(plain)} bytes is too large")
    packed = compress_if_smaller(plain, level)
    if packed is None:
        writer.add(kind, (plain,), compression=COMPRESSION_NONE)
    else:
        writer.add(kind, (packed,), compression=COMPRESSION_ZSTD, plain=len(plain))


def describe(description: object) -> bytes:
    """A description ready to be put in front of the bytes it describes."""
    encoded = encode_wire(description)
    if len(encoded) > MAX_DESCRIPTION:
        raise FormatError("object being written", f"description of {len(encoded)} bytes is too large")
    return _LENGTH.pack(len(encoded)) + encoded


def read_description(read: Read, section: SectionHeader, kind: type[T], artefact: str) -> tuple[T, int, int]:
    """Description of a section, then offset and length of the body behind it.  Raises DamagedError."""
    if section.stored < DESCRIPTION_PREFIX or section.compression != COMPRESSION_NONE:
        raise DamagedError(artefact, "no description", section.offset)
    (length,) = _LENGTH.unpack(read_exactly(read, section.payload, DESCRIPTION_PREFIX, artefact))
    body = section.payload + DESCRIPTION_PREFIX + length
    if length > MAX_DESCRIPTION or body > section.end:
        raise DamagedError(artefact, "impossible description length", section.offset)
    data = read_exactly(read, section.payload + DESCRIPTION_PREFIX, length, artefact)
    return decode_wire(data, kind, artefact), body, section.end - body
