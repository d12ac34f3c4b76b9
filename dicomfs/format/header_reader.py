"""Reading of header packs: instance tables, header blocks, repair by scan.

Owns where the header bytes of an instance lie.  Keeps decoded nothing but one dictionary, one set of
templates and the row places of each part: caching of blocks is the caller's.
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
from dicomfs.format.header_columns import assemble, templates_of, text_of, unpack
from dicomfs.format.header_index import (
    BlockDescription,
    BlockRecord,
    DictionaryPlace,
    HeaderIndexRecord,
    PartSummaryRecord,
)
from dicomfs.format.header_parts import decode_parts
from dicomfs.format.header_table import PartRecord, SeriesPart, decode_part, header_lengths
from dicomfs.format.shared_texts import ReadText, is_part_of, no_text
from dicomfs.format.templates import TemplateSet
from dicomfs.format.version import MAX_BLOCK, MAX_COLUMN_BLOCK, MAX_INDEX, Section
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


class _LostBlock(DamagedError):
    """A block that no section holds any more."""


class _Places(NamedTuple):
    """Where the header bytes of each row lie."""

    block: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


class HeaderPackReader:
    """Index of one header pack and access to tables and header bytes.

    ``read`` as for PackReader; ``read_text`` gives shared texts.  Usable from several threads when these are:
    what is remembered inside is replaced whole, and only ever by an equal value.  Opening raises
    DamagedError, UnsupportedVersion or UnsupportedFeature.
    """

    def __init__(self, read: Read, size: int, name: str, read_text: ReadText = no_text) -> None:
        head, payload, limit = load_index(read, size, name)
        self._init(read, name, head, _index(payload, limit, name), read_text)

    def _init(self, read: Read, name: str, head: Head, index: _Index, read_text: ReadText) -> None:
        if pack_kind(head.kind, name) is not PackKind.HEADER:
            raise DamagedError(name, "not a header pack")
        self._read, self._read_text = read, read_text
        self.name = name
        """For messages only."""
        self.archive_id = head.archive_id
        self._blocks = index.blocks
        self._parts = index.parts
        self._places: dict[int, _Places] = {}
        self._dictionary: tuple[DictionaryPlace, bytes] | None = None
        self._templates: tuple[int, TemplateSet] | None = None
        self._tables: tuple[int, tuple[PartRecord, ...]] | None = None
        if index.sections:
            self._parts = self._scanned(index.sections)
        self.parts = [PartSummary(p.patient, p.study, p.series, p.part, p.rows) for p in self._parts]

    def _scanned(self, sections: list[SectionHeader]) -> list[PartSummaryRecord]:
        """What the index would say of the parts in these sections; those whose block is lost are left out."""
        numbered: dict[int, PartSummaryRecord] = {}
        others: list[PartSummaryRecord] = []
        for section in sections:
            try:
                numbers, records = self._tables_of(section.kind, _payload(self._read, section, self.name))
            except _LostBlock:
                continue
            summaries = [_summary(one, section.offset, section.end - section.offset) for one in records]
            if numbers is None:
                others += summaries
            else:
                numbered.update(zip(numbers, summaries, strict=True))
        return others + [summary for _, summary in sorted(numbered.items())]

    @classmethod
    def rebuild(cls, read: Read, size: int, name: str, read_text: ReadText = no_text) -> HeaderPackReader:
        """Open a pack by scanning its sections, for a lost or damaged index (verify, recover).

        Reads the whole object in bounded memory.  Lost parts are missing; header bytes of lost blocks raise
        DamagedError.  Raises DamagedError when neither head nor index is left.
        """
        reader = cls.__new__(cls)
        reader._init(read, name, *_scan(read, size, name), read_text)
        return reader

    @property
    def block_count(self) -> int:
        """Number of blocks, lost ones at the end not counted."""
        return max(self._blocks, default=-1) + 1

    def stored_bytes(self, number: int) -> int:
        """Bytes that a block takes in the pack; DamagedError where it is lost."""
        return self._block(number).stored

    def part(self, number: int) -> SeriesPart:
        """The table of a part, decoded anew at each call; NotFoundError, DamagedError.

        Decodes all its header blocks for the SOP Instance UIDs.  Where a block is lost they are ''.
        """
        known: dict[int, bytes | DamagedError] = {}

        def header(row: int) -> bytes:
            block, offset, length = self.block_of(number, row)
            if block not in known:
                known.clear()
                known[block] = self._block_or_error(block)
            plain = known[block]
            if isinstance(plain, DamagedError):
                raise plain
            return plain[offset : offset + length]

        return decode_part(self._record(number), self.name, header)

    def table(self, number: int) -> SeriesPart:
        """As `part`, without the SOP Instance UIDs that lie in header blocks: they are ''."""
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
        """The plain bytes of a block, at most 16 MiB, checked; DamagedError, UnsupportedFeature.

        Raises as ``read_text`` does where it needs a shared text.
        """
        record = self._block(number)
        data = read_exactly(self._read, record.place, record.stored, self.name)
        if record.rows:
            templates = None if record.base is None else self._templates_of(record.base)
            streams = unpack(data, self.name, self._read_text)
            plain = assemble(streams, templates, record.rows, record.plain, self.name)
        elif record.plain > MAX_BLOCK:
            raise DamagedError(self.name, "header block is too long", record.place)
        else:
            dictionary = None if record.dictionary is None else self._dictionary_bytes(record.dictionary)
            plain = decompress(data, record.plain, self.name, dictionary)
        if digest64(plain) != int.from_bytes(record.digest, "little"):
            raise DamagedError(self.name, "header block digest does not match", record.place)
        return plain

    def has_whole_text(self, number: int) -> bool:
        """Whether a block has all pieces of the shared text that it needs, if any; raises as `block` does."""
        record = self._block(number)
        data = read_exactly(self._read, record.place, record.stored, self.name)
        ref = text_of(data, self.name) if record.rows else None
        return ref is None or is_part_of(self._read_text(ref), unpack(data, self.name, self._read_text).text)

    def header(self, part: int, row: int) -> bytes:
        """The header bytes of a row; decodes its whole block.  NotFoundError, DamagedError."""
        block, offset, length = self.block_of(part, row)
        header = self.block(block)[offset : offset + length]
        if len(header) != length:
            raise DamagedError(self.name, "header reaches beyond its block")
        return header

    def _block_or_error(self, number: int) -> bytes | DamagedError:
        try:
            return self.block(number)
        except DamagedError as error:
            return error

    def _block(self, number: int) -> BlockRecord:
        if number not in self._blocks:
            raise _LostBlock(self.name, f"header block {number} is lost")
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

    def _templates_of(self, number: int) -> TemplateSet:
        """The templates of a block of columns, remembered: the blocks of a series share one set."""
        remembered = self._templates
        if remembered is not None and remembered[0] == number:
            return remembered[1]
        record = self._block(number)
        if not record.rows or record.base is not None:
            raise DamagedError(self.name, f"header block {number} has no templates", record.place)
        data = read_exactly(self._read, record.place, record.stored, self.name)
        found = templates_of(unpack(data, self.name, self._read_text), self.name)
        self._templates = (number, found)
        return found

    def _record(self, number: int) -> PartRecord:
        if not 0 <= number < len(self._parts):
            raise NotFoundError("series part", f"{self.name}#{number}")
        summary = self._parts[number]
        records = self._section(summary.place, summary.length)
        # Parts of one section are numbered in the order in which they stand there.
        at = sum(other.place == summary.place for other in self._parts[:number])
        if at >= len(records) or _summary(records[at], summary.place, summary.length) != summary:
            raise DamagedError(self.name, "index and series part disagree", summary.place)
        return records[at]

    def _section(self, place: int, length: int) -> tuple[PartRecord, ...]:
        """The tables in a section, remembered: small parts are asked for one after the other."""
        remembered = self._tables
        if remembered is not None and remembered[0] == place:
            return remembered[1]
        data = read_exactly(self._read, place, length, self.name)
        section, payload = open_section(data, place, 2 * MAX_INDEX, self.name)
        records = self._tables_of(section.kind, payload)[1]
        self._tables = (place, records)
        return records

    def _tables_of(self, kind: int, payload: bytes) -> tuple[tuple[int, ...] | None, tuple[PartRecord, ...]]:
        """Numbers, where the section gives them, and tables in the payload of a section."""
        if kind == Section.SERIES_PARTS:
            return decode_parts(payload, self._dictionary_bytes, self.name)
        if kind != Section.SERIES_PART or len(payload) > MAX_INDEX:
            raise DamagedError(self.name, "no series part here")
        return None, (decode_wire(payload, PartRecord, self.name),)


class _Index(NamedTuple):
    blocks: dict[int, BlockRecord]
    parts: list[PartSummaryRecord]
    sections: list[SectionHeader]
    """Of a scan: sections with tables, which can't be decoded before all blocks are known."""


def _index(payload: bytes, limit: int, name: str) -> _Index:
    record = decode_wire(payload, HeaderIndexRecord, name)
    ends = itertools.chain(
        (block.place + block.stored for block in record.blocks),
        (part.place + part.length for part in record.parts),
    )
    if any(end > limit for end in ends) or any(part.length > 2 * MAX_INDEX for part in record.parts):
        raise DamagedError(name, "index points beyond the pack")
    return _Index(dict(enumerate(record.blocks)), list(record.parts), [])


def _scan(read: Read, size: int, name: str) -> tuple[Head, _Index]:
    head: Head | None = None
    index = _Index({}, [], [])
    for section in scan_sections(read, size, name):
        if section.kind == Section.INDEX:
            payload = _payload(read, section, name)
            return index_head(payload, name), _index(payload, section.offset, name)
        if section.kind == Section.HEAD:
            head = decode_wire(_payload(read, section, name), Head, name)
            head.check(name)
        elif section.kind == Section.HEADER_BLOCK:
            found, place, length = read_description(read, section, BlockDescription, name)
            if length > 2 * MAX_COLUMN_BLOCK:
                raise DamagedError(name, "impossible section length", section.offset)
            index.blocks[found.number] = BlockRecord(
                place, length, found.plain, found.digest, found.dictionary, found.rows, found.base
            )
        elif section.kind in (Section.SERIES_PART, Section.SERIES_PARTS):
            index.sections.append(section)
        elif not section.optional:
            raise UnsupportedFeature(name, [f"section kind {section.kind}"])
    if head is None:
        raise DamagedError(name, "neither head nor index is left")
    return head, index


def _payload(read: Read, section: SectionHeader, name: str) -> bytes:
    if section.stored > 2 * MAX_INDEX:
        raise DamagedError(name, "impossible section length", section.offset)
    data = read_exactly(read, section.offset, section.end - section.offset, name)
    return open_section(data, section.offset, 2 * MAX_INDEX, name)[1]


def _summary(record: PartRecord, place: int, length: int) -> PartSummaryRecord:
    return PartSummaryRecord(
        record.patient.number,
        record.study.number,
        record.series.number,
        record.part,
        record.rows,
        place,
        length,
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
