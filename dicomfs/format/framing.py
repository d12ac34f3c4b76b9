"""Sections: the self-checking records that every object is made of.

Owns the 40-byte section header, writing and loading of sections, and the scan that finds valid sections in
a damaged object.  Does not know what the payloads mean.

Section header, little-endian: magic 8, kind u16, flags u8, compression u8, number u32, stored length u64,
plain length u64, check u64.  The check is XXH3-64, seeded with the section's offset in the object, of the
first 32 bytes of the header and of the stored payload.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.compression import decompress
from dicomfs.format.digest import section_check
from dicomfs.format.version import (
    COMPRESSION_NONE,
    COMPRESSION_ZSTD,
    FLAG_OPTIONAL,
    MAX_LENGTH,
    MIB,
    SECTION_MAGIC,
)

if TYPE_CHECKING:
    from dicomfs.format.digest import Buffer

Read = Callable[[int, int], bytes]
"""``read(offset, length)``: those bytes of an object, short only at its end."""

_FIELDS = struct.Struct("<8sHBBIQQ")
_CHECK = struct.Struct("<Q")
SECTION_HEADER_BYTES = _FIELDS.size + _CHECK.size
_SCAN_WINDOW = 1 * MIB
_HASH_STEP = 4 * MIB


@dataclass(frozen=True, slots=True)
class SectionHeader:
    """One parsed section header and its place."""

    offset: int
    """Byte offset of the header in the object."""
    kind: int
    optional: bool
    compression: int
    number: int
    stored: int
    """Bytes of the payload as stored."""
    plain: int
    """Bytes of the payload when decompressed; equals ``stored`` without compression."""
    check: int

    @property
    def payload(self) -> int:
        """Byte offset of the payload."""
        return self.offset + SECTION_HEADER_BYTES

    @property
    def end(self) -> int:
        """Byte offset behind the section."""
        return self.payload + self.stored

    def fields(self) -> bytes:
        """The 32 header bytes that the check covers."""
        flags = FLAG_OPTIONAL if self.optional else 0
        return _FIELDS.pack(
            SECTION_MAGIC, self.kind, flags, self.compression, self.number, self.stored, self.plain
        )


def parse_section_header(data: Buffer, offset: int, artefact: str) -> SectionHeader:
    """The header in the first 40 bytes of ``data``, found at ``offset``; the check is not verified here.

    Raises DamagedError for bad magic, reserved flags, unknown compression or impossible lengths.
    """
    if len(data) < SECTION_HEADER_BYTES:
        raise DamagedError(artefact, "truncated section header", offset)
    magic, kind, flags, compression, number, stored, plain = _FIELDS.unpack_from(data)
    (check,) = _CHECK.unpack_from(data, _FIELDS.size)
    if magic != SECTION_MAGIC:
        raise DamagedError(artefact, "no section here", offset)
    if flags & ~FLAG_OPTIONAL or compression not in (COMPRESSION_NONE, COMPRESSION_ZSTD):
        raise DamagedError(artefact, "impossible section header", offset)
    if stored > MAX_LENGTH or plain > MAX_LENGTH or (compression == COMPRESSION_NONE and stored != plain):
        raise DamagedError(artefact, "impossible section length", offset)
    return SectionHeader(offset, kind, bool(flags & FLAG_OPTIONAL), compression, number, stored, plain, check)


def read_exactly(read: Read, offset: int, length: int, artefact: str) -> bytes:
    """``length`` bytes from ``offset``; DamagedError when the object ends before."""
    data = read(offset, length)
    if len(data) != length:
        raise DamagedError(artefact, f"{len(data)} bytes instead of {length}", offset)
    return data


def open_section(data: Buffer, offset: int, limit: int, artefact: str) -> tuple[SectionHeader, bytes]:
    """Header and plain payload of the section that ``data`` holds whole, found at ``offset``.

    ``limit`` bounds the plain length before anything is decompressed.  Raises DamagedError.
    """
    header = parse_section_header(data, offset, artefact)
    view = memoryview(data)[SECTION_HEADER_BYTES:]
    if header.stored != len(view):
        raise DamagedError(artefact, "section length does not fit", offset)
    if header.plain > limit:
        raise DamagedError(artefact, f"section of {header.plain} bytes, at most {limit} are allowed", offset)
    if section_check(offset, (header.fields(), view)) != header.check:
        raise DamagedError(artefact, "section check does not match", offset)
    if header.compression == COMPRESSION_ZSTD:
        return header, decompress(view, header.plain, artefact)
    return header, bytes(view)


def section_is_intact(read: Read, header: SectionHeader, size: int) -> bool:
    """Whether the payload matches the check; reads it in steps of 4 MiB."""
    if header.end > size:
        return False

    def parts() -> Iterator[bytes]:
        yield header.fields()
        for start in range(header.payload, header.end, _HASH_STEP):
            yield read(start, min(_HASH_STEP, header.end - start))

    return section_check(header.offset, parts()) == header.check


def scan_sections(read: Read, size: int, artefact: str) -> Iterator[SectionHeader]:
    """All intact sections of an object, in order, resynchronising on the magic behind damage.

    Memory stays below 8 MiB.  Time is bounded too: false sections whose payload had to be hashed in vain may
    sum up to twice the object and 64 MiB, then DamagedError.
    """
    budget = 2 * size + 64 * MIB
    position = 0
    while position < size:
        for candidate in _candidates(read, position, size):
            header = _header_at(read, candidate, artefact)
            if header is None or header.end > size:
                continue
            if section_is_intact(read, header, size):
                break
            budget -= header.stored
            if budget < 0:
                raise DamagedError(artefact, "too many false sections", candidate)
        else:
            return
        yield header
        position = header.end


def _header_at(read: Read, offset: int, artefact: str) -> SectionHeader | None:
    try:
        return parse_section_header(read(offset, SECTION_HEADER_BYTES), offset, artefact)
    except DamagedError:
        return None


def _candidates(read: Read, start: int, size: int) -> Iterator[int]:
    """``start``, then the offset of every section magic behind it."""
    yield start
    start += 1
    while start < size:
        window = read(start, _SCAN_WINDOW)
        found = window.find(SECTION_MAGIC)
        while found >= 0:
            yield start + found
            found = window.find(SECTION_MAGIC, found + 1)
        if start + len(window) >= size or len(window) < len(SECTION_MAGIC):
            return
        start += len(window) - (len(SECTION_MAGIC) - 1)


class SectionWriter:
    """Appends sections to a file, numbers them and hashes all bytes on the way.

    Not thread-safe.  After the first failed write it refuses everything: what lies in the file is unknown.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._usable = True
        self.size = 0
        """Bytes written so far."""
        self.sections = 0
        """Sections written so far."""

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes written so far, 64 hex digits."""
        return self._sha256.hexdigest()

    def add(
        self,
        kind: int,
        parts: tuple[Buffer, ...],
        *,
        compression: int = COMPRESSION_NONE,
        plain: int | None = None,
        optional: bool = False,
    ) -> int:
        """Append one section whose stored payload is the concatenation of ``parts``.

        Returns the offset of the payload.  ``plain`` is needed with compression only.
        """
        stored = sum(len(part) for part in parts)
        plain = stored if plain is None else plain
        header = SectionHeader(self.size, kind, optional, compression, self.sections, stored, plain, 0)
        fields = header.fields()
        self.append(fields)
        self.append(_CHECK.pack(section_check(header.offset, (fields, *parts))))
        for part in parts:
            self.append(part)
        self.sections += 1
        return header.payload

    def append(self, data: Buffer) -> None:
        """Append bytes as they are."""
        if not self._usable:
            raise FormatError("object being written", "an earlier write failed or it is finished")
        self._usable = False
        view = memoryview(data).cast("B")
        self._sha256.update(view)
        self.size += len(view)
        while len(view):
            # An unbuffered file may take fewer bytes than offered.
            view = view[self._file.write(view) :]
        self._usable = True

    def close(self) -> None:
        """Refuse any further write; the file stays open and belongs to the caller."""
        self._usable = False
