"""Reading of header packs: instance tables, header blocks, repair by scan.

Owns where the header bytes of an instance lie.  Keeps decoded nothing but one dictionary and the row places
of each part: caching of blocks is the caller's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError, NotFoundError, UnsupportedFeature
from dicomfs.format.compression import decompress
from dicomfs.format.digest import digest64
from dicomfs.format.framing import Read, SectionHeader, open_section, read_exactly, scan_sections
from dicomfs.format.head import Head, index_head, load_index, pack_kind
from dicomfs.format.header_index import (
    BlockDescription,
    BlockRecord,
    DictionaryPlace,
    HeaderIndexRecord,
    PartSummaryRecord,
)
from dicomfs.format.header_table import PartRecord, SeriesPart, decode_part, header_lengths
from dicomfs.format.version import MAX_BLOCK, MAX_INDEX, Section
from dicomfs.format.wire import decode_wire, read_description
from dicomfs.model import PackKind


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What the index says of a series part."""

    patient: int
    study: int
    series: int
    part: int
    rows: int


class _Places(NamedTuple):
    """Where the header bytes of each row lie."""

    block: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


class HeaderPackReader:
    """Index of one header pack and access to tables and header bytes.

    ``read`` as for PackReader.  Usable from several threads when ``read`` is: what is remembered inside is
    replaced whole, and only ever by an equal value.  Opening raises DamagedError, UnsupportedVersion or
    UnsupportedFeature.
    """

    def __init__(self, read: Read, size: int, name: str) -> None:
        head, payload, limit = load_index(read, size, name)
        self._init(read, name, head, _index(payload, limit, name))

    def _init(self, read: Read, name: str, head: Head, index: _Index) -> None:
        if pack_kind(head.kind, name) is not PackKind.HEADER:
            raise DamagedError(name, "not a header pack")
        self._read = read
        self.name = name
        """For messages only."""
        self.archive_id = head.archive_id
        self._blocks = index.blocks
        self._parts = index.parts
        self.parts = [PartSummary(p.patient, p.study, p.series, p.part, p.rows) for p in index.parts]
        self._places: dict[int, _Places] = {}
        self._dictionary: tuple[DictionaryPlace, bytes] | None = None

    @classmethod
    def rebuild(cls, read: Read, size: int, name: str) -> HeaderPackReader:
        """Open a pack by scanning its sections, for a lost or damaged index (verify, recover).

        Reads the whole object in bounded memory.  Lost parts are missing; header bytes of lost blocks raise
        DamagedError.  Raises DamagedError when neither head nor index is left.
        """
        reader = cls.__new__(cls)
        reader._init(read, name, *_scan(read, size, name))
        return reader

    @property
    def block_count(self) -> int:
        """Number of blocks, lost ones at the end not counted."""
        return max(self._blocks, default=-1) + 1

    def part(self, number: int) -> SeriesPart:
        """The table of a part, decoded anew at each call; NotFoundError, DamagedError."""
        return decode_part(self._record(number), self.name)

    def block_of(self, part: int, row: int) -> tuple[int, int, int]:
        """(block, offset in its plain bytes, length) of the header bytes of a row; NotFoundError."""
        if part not in self._places:
            self._places[part] = _places(self._record(part), self.name)
        places = self._places[part]
        if not 0 <= row < len(places.block):
            raise NotFoundError("row of a series part", str(row))
        return int(places.block[row]), int(places.offset[row]), int(places.length[row])

    def block(self, number: int) -> bytes:
        """The plain bytes of a block, at most 4 MiB, checked; DamagedError."""
        record = self._block(number)
        data = read_exactly(self._read, record.place, record.stored, self.name)
        dictionary = None if record.dictionary is None else self._dictionary_bytes(record.dictionary)
        plain = decompress(data, record.plain, self.name, dictionary)
        if digest64(plain) != int.from_bytes(record.digest, "little"):
            raise DamagedError(self.name, "header block digest does not match", record.place)
        return plain

    def header(self, part: int, row: int) -> bytes:
        """The header bytes of a row; decodes its whole block.  NotFoundError, DamagedError."""
        block, offset, length = self.block_of(part, row)
        header = self.block(block)[offset : offset + length]
        if len(header) != length:
            raise DamagedError(self.name, "header reaches beyond its block")
        return header

    def _block(self, number: int) -> BlockRecord:
        if number not in self._blocks:
            raise DamagedError(self.name, f"header block {number} is lost")
        return self._blocks[number]

    def _dictionary_bytes(self, place: DictionaryPlace) -> bytes:
        remembered = self._dictionary
        if remembered is not None and remembered[0] == place:
            return remembered[1]
        if self._block(place.block).dictionary is not None:
            raise DamagedError(self.name, "dictionary behind a dictionary")
        found = self.block(place.block)[place.offset : place.offset + place.length]
        if len(found) != place.length:
            raise DamagedError(self.name, "dictionary reaches beyond its block")
        self._dictionary = (place, found)
        return found

    def _record(self, number: int) -> PartRecord:
        if not 0 <= number < len(self._parts):
            raise NotFoundError("series part", f"{self.name}#{number}")
        summary = self._parts[number]
        data = read_exactly(self._read, summary.place, summary.length, self.name)
        section, payload = open_section(data, summary.place, MAX_INDEX, self.name)
        record = decode_wire(payload, PartRecord, self.name)
        if section.kind != Section.SERIES_PART or _summary(record, section) != summary:
            raise DamagedError(self.name, "index and series part disagree", summary.place)
        return record


class _Index(NamedTuple):
    blocks: dict[int, BlockRecord]
    parts: list[PartSummaryRecord]


def _index(payload: bytes, limit: int, name: str) -> _Index:
    record = decode_wire(payload, HeaderIndexRecord, name)
    ends = itertools.chain(
        (block.place + block.stored for block in record.blocks),
        (part.place + part.length for part in record.parts),
    )
    if any(end > limit for end in ends) or any(part.length > 2 * MAX_INDEX for part in record.parts):
        raise DamagedError(name, "index points beyond the pack")
    return _Index(dict(enumerate(record.blocks)), list(record.parts))


def _scan(read: Read, size: int, name: str) -> tuple[Head, _Index]:
    head: Head | None = None
    index = _Index({}, [])
    for section in scan_sections(read, size, name):
        if section.kind == Section.INDEX:
            payload = _payload(read, section, name)
            return index_head(payload, name), _index(payload, section.offset, name)
        if section.kind == Section.HEAD:
            head = decode_wire(_payload(read, section, name), Head, name)
            head.check(name)
        elif section.kind == Section.HEADER_BLOCK:
            found, place, length = read_description(read, section, BlockDescription, name)
            if length > 2 * MAX_BLOCK:
                raise DamagedError(name, "impossible section length", section.offset)
            index.blocks[found.number] = BlockRecord(
                place, length, found.plain, found.digest, found.dictionary
            )
        elif section.kind == Section.SERIES_PART:
            record = decode_wire(_payload(read, section, name), PartRecord, name)
            index.parts.append(_summary(record, section))
        elif not section.optional:
            raise UnsupportedFeature(name, [f"section kind {section.kind}"])
    if head is None:
        raise DamagedError(name, "neither head nor index is left")
    return head, index


def _payload(read: Read, section: SectionHeader, name: str) -> bytes:
    if section.stored > 2 * MAX_INDEX:
        raise DamagedError(name, "impossible section length", section.offset)
    data = read_exactly(read, section.offset, section.end - section.offset, name)
    return open_section(data, section.offset, MAX_INDEX, name)[1]


def _summary(record: PartRecord, section: SectionHeader) -> PartSummaryRecord:
    return PartSummaryRecord(
        record.patient.number,
        record.study.number,
        record.series.number,
        record.part,
        record.rows,
        section.offset,
        section.end - section.offset,
    )


def _places(record: PartRecord, name: str) -> _Places:
    lengths = header_lengths(record, name)
    counts = np.array([rows for _, _, rows in record.runs], dtype=np.int64)
    if int(counts.sum()) != record.rows:
        raise DamagedError(name, "header runs do not cover the table")
    starts = np.cumsum(counts) - counts
    before = np.cumsum(lengths) - lengths
    offsets = np.array([offset for _, offset, _ in record.runs], dtype=np.int64)
    blocks = np.array([block for block, _, _ in record.runs], dtype=np.int64)
    # Offset in the block = offset of the run + header bytes of the run's rows before this one.
    shift = offsets - before[starts] if record.rows else offsets
    return _Places(np.repeat(blocks, counts), np.repeat(shift, counts) + before, lengths)
