"""Head and trailer: what every object says of itself first, and where a pack's index lies.

Owns version and feature checks of objects.

Trailer, 64 bytes little-endian at the very end of a pack: index offset u64, index length u64 (whole
section), pack size u64, major u16, minor u16, object kind u8, 3 zero bytes, archive id 16, check u64 (XXH3-64
of the first 48 bytes, seeded with the trailer's offset), magic 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated

import msgspec

from dicomfs.errors import DamagedError, FormatError, UnsupportedFeature, UnsupportedVersion
from dicomfs.format.digest import digest64, section_check
from dicomfs.format.framing import Read, SectionWriter, open_section, read_exactly
from dicomfs.format.version import (
    ARCHIVE_ID_BYTES,
    KNOWN_FEATURES,
    MAJOR,
    MAX_FEATURES,
    MAX_INDEX,
    MINOR,
    TAIL_READ,
    TRAILER_MAGIC,
    Section,
)
from dicomfs.format.wire import decode_wire, encode_wire, pack_section
from dicomfs.model import PackKind

_TRAILER = struct.Struct("<QQQHHB3x16s")
_TRAILER_END = struct.Struct("<Q8s")
TRAILER_BYTES = _TRAILER.size + _TRAILER_END.size
_INDEX_LEVEL = 12


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Payload of a HEAD section and first element of every index.

    These five elements stay as they are in all future versions.
    """

    major: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    minor: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    kind: Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
    archive_id: Annotated[bytes, msgspec.Meta(min_length=ARCHIVE_ID_BYTES, max_length=ARCHIVE_ID_BYTES)]
    features: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_FEATURES)]

    def check(self, artefact: str) -> None:
        """Raise UnsupportedVersion or UnsupportedFeature when this version can't read the object."""
        check_major(self.major, artefact)
        unknown = sorted(set(self.features) - KNOWN_FEATURES)
        if unknown:
            raise UnsupportedFeature(artefact, unknown)


class _IndexStart(msgspec.Struct, frozen=True, array_like=True):
    """The first element of any index; what follows depends on version and features."""

    head: Head


@dataclass(frozen=True, slots=True)
class Trailer:
    """The fixed last bytes of a pack."""

    index_offset: int
    index_length: int
    size: int
    major: int
    minor: int
    kind: int
    archive_id: bytes

    @property
    def offset(self) -> int:
        """Where the trailer itself lies."""
        return self.size - TRAILER_BYTES


def new_head(kind: int, archive_id: bytes, features: tuple[str, ...] = ()) -> Head:
    """Head of an object written by this version; FormatError for a bad archive id or unknown features."""
    if len(archive_id) != ARCHIVE_ID_BYTES:
        raise FormatError("object being written", f"archive id of {len(archive_id)} bytes")
    head = Head(MAJOR, MINOR, kind, archive_id, features)
    head.check("object being written")
    return head


def check_major(major: int, artefact: str) -> None:
    """Raise UnsupportedVersion for a newer major version, DamagedError for version 0."""
    if major > MAJOR:
        raise UnsupportedVersion(artefact, major, MAJOR)
    if major < 1:
        raise DamagedError(artefact, "format version 0")


def pack_kind(kind: int, artefact: str) -> PackKind:
    """The pack kind of a stored value; DamagedError when there is none."""
    try:
        return PackKind(kind)
    except ValueError as error:
        raise DamagedError(artefact, f"no pack: object kind {kind}") from error


def write_index(writer: SectionWriter, head: Head, index: msgspec.Struct) -> int:
    """Append the index section and the trailer; nothing can be appended afterwards.

    Returns the digest of the plain index, by which header packs know the pack they refer to.
    """
    offset = writer.size
    payload = encode_wire(index)
    pack_section(writer, Section.INDEX, payload, _INDEX_LEVEL)
    length, size = writer.size - offset, writer.size + TRAILER_BYTES
    fields = _TRAILER.pack(offset, length, size, head.major, head.minor, head.kind, head.archive_id)
    check = section_check(size - TRAILER_BYTES, (fields,))
    writer.append(fields + _TRAILER_END.pack(check, TRAILER_MAGIC))
    writer.close()
    return digest64(payload)


def parse_trailer(data: bytes, size: int, artefact: str) -> Trailer:
    """The trailer from the last bytes ``data`` of an object of ``size`` bytes.

    Raises DamagedError, or UnsupportedVersion for an intact trailer of a newer major version.
    """
    if size < TRAILER_BYTES or len(data) < TRAILER_BYTES:
        raise DamagedError(artefact, f"{size} bytes are no pack")
    fields, end = data[-TRAILER_BYTES : -_TRAILER_END.size], data[-_TRAILER_END.size :]
    check, magic = _TRAILER_END.unpack(end)
    if magic != TRAILER_MAGIC or check != section_check(size - TRAILER_BYTES, (fields,)):
        raise DamagedError(artefact, "no valid trailer", size - TRAILER_BYTES)
    trailer = Trailer(*_TRAILER.unpack(fields))
    check_major(trailer.major, artefact)
    if trailer.size != size or trailer.index_offset + trailer.index_length != trailer.offset:
        raise DamagedError(artefact, "trailer does not fit the object", trailer.offset)
    return trailer


def load_index(read: Read, size: int, artefact: str) -> tuple[Head, bytes, int]:
    """Checked head, plain index payload and index offset of a pack: one range, or two for a large index.

    Raises DamagedError, UnsupportedVersion, UnsupportedFeature.
    """
    start = max(0, size - TAIL_READ)
    tail = read_exactly(read, start, size - start, artefact)
    trailer = parse_trailer(tail, size, artefact)
    if trailer.index_length > MAX_INDEX:
        raise DamagedError(artefact, "impossible index length", trailer.offset)
    if trailer.index_offset >= start:
        stored = tail[trailer.index_offset - start : trailer.offset - start]
    else:
        stored = read_exactly(read, trailer.index_offset, trailer.index_length, artefact)
    section, payload = open_section(stored, trailer.index_offset, MAX_INDEX, artefact)
    if section.kind != Section.INDEX:
        raise DamagedError(artefact, "trailer does not point to an index", trailer.index_offset)
    head = index_head(payload, artefact)
    if (head.kind, head.archive_id) != (trailer.kind, trailer.archive_id):
        raise DamagedError(artefact, "index and trailer disagree", trailer.index_offset)
    return head, payload, trailer.index_offset


def index_head(payload: bytes, artefact: str) -> Head:
    """The checked head inside an index payload, whatever else that index holds."""
    head = decode_wire(payload, _IndexStart, artefact).head
    head.check(artefact)
    return head


def write_head(writer: SectionWriter, head: Head) -> None:
    """Append the HEAD section; it is the first one of every object."""
    writer.add(Section.HEAD, (encode_wire(head),))
