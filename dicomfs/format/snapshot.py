"""Snapshots: what recovery would learn from header packs, stand-ins and journal, in one object.

Owns their values and stored form (docs/format.md, "Snapshot").  Nothing in one is new: each fact follows from
an object that it names, so a snapshot can be left out, and says nothing of objects that it does not name.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, BinaryIO, TypeVar

import msgspec

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.columns import IntColumn, TextColumn, decode_ints, decode_texts, encode_ints, encode_texts
from dicomfs.format.framing import (
    SECTION_HEADER_BYTES,
    Read,
    SectionHeader,
    SectionWriter,
    open_section,
    parse_section_header,
    read_exactly,
)
from dicomfs.format.head import Head, new_head, write_head
from dicomfs.format.header_table import InstanceEntry, SeriesPart
from dicomfs.format.keys import (
    StoredPackKey,
    key_of_stored,
    pack_key,
    parse_pack_key,
    snapshot_key,
    stored_pack_key,
)
from dicomfs.format.nodes import PatientRecord, SeriesRecord, StudyRecord
from dicomfs.format.version import MAX_INDEX, MAX_PART_ROWS, MAX_STANDS_FOR, MIB, SNAPSHOT_OBJECT, Section
from dicomfs.format.wire import decode_wire, encode_wire, pack_section
from dicomfs.model import (
    POSITION_BITS,
    ObjectKey,
    PackKind,
    PatientNode,
    SeriesNode,
    StudyNode,
)

_WRITING = "snapshot being written"
_LEVEL = 9
_SECTION_BYTES = 1 * MIB
"""A section is ended when it has more: about ten thousand instances, which are decoded together."""
_SHA256_BYTES = 32
_T = TypeVar("_T", bound=msgspec.Struct)
_Digest = Annotated[bytes, msgspec.Meta(min_length=_SHA256_BYTES, max_length=_SHA256_BYTES)]
_Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Sequence = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
"""A u64, which msgpack's integers are too, but not those that msgspec checks."""


@dataclass(frozen=True, slots=True)
class About:
    """What a snapshot says of itself."""

    time_ns: int
    """When it was begun, nanoseconds since 1970, clock of the writer."""
    writer: str
    """Version of dicomfs that wrote it."""
    sequence: int
    """Number of the last journal object that it holds or follows, 0 where there was none."""
    headers: int
    """Header packs that the archive had, whether it holds their facts or not."""


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What recovery wants to know of one series part, without pieces and header bytes."""

    patient: PatientNode
    study: StudyNode
    series: SeriesNode
    part: int
    high_water: dict[str, int]
    needed: frozenset[ObjectKey]
    """Packs that pieces of the entries lie in, and the texts of their header blocks."""
    entries: list[InstanceEntry]
    """One for each row, without pieces and notes; of what was forgotten the position alone (`is_blank`)."""

    @classmethod
    def of(cls, part: SeriesPart, forgotten: Container[int]) -> PartFacts:
        """The facts of a part; ``forgotten`` are positions of instances that do not exist any more."""
        kept = [entry for entry in part.entries if entry.position not in forgotten]
        return cls(
            part.patient,
            part.study,
            part.series,
            part.part,
            part.high_water,
            frozenset(part.needs(kept)),
            [_blank(one.position) if one.position in forgotten else _bare(one) for one in part.entries],
        )

    def agrees(self, forgotten: Container[int]) -> bool:
        """Whether exactly these positions are left blank."""
        return all(is_blank(one) == (one.position in forgotten) for one in self.entries)


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What recovery wants to know of one header pack."""

    key: ObjectKey
    size: int
    """Bytes of the pack."""
    parts: tuple[PartFacts, ...]
    """In the order of its index."""


@dataclass(frozen=True, slots=True)
class StandInFacts:
    """What a pack says that is read in the place of others."""

    key: ObjectKey
    size: int
    profile: str
    """Name of the profile, empty where it is not known."""
    stands_for: tuple[ObjectKey, ...] = field(default=())


class _AboutRecord(msgspec.Struct, frozen=True, array_like=True):
    time_ns: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    writer: str
    sequence: _Sequence
    headers: _Count


class _JournalRecord(msgspec.Struct, frozen=True, array_like=True):
    sequence: _Sequence
    data: bytes


class _PartRecord(msgspec.Struct, frozen=True, array_like=True):
    patient: PatientRecord
    study: StudyRecord
    series: SeriesRecord
    part: _Count
    high_water: dict[str, Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]]
    needed: tuple[StoredPackKey, ...]
    rows: Annotated[int, msgspec.Meta(ge=0, le=MAX_PART_ROWS)]
    position: IntColumn
    name_level: IntColumn
    has_number: IntColumn
    number: IntColumn
    uid: TextColumn
    size: IntColumn
    mtime: IntColumn
    order: IntColumn
    sha256: bytes


class _HeaderRecord(msgspec.Struct, frozen=True, array_like=True):
    digest: _Digest
    size: _Size
    parts: msgspec.Raw
    """Array of parts: kept raw, so that one is found without decoding the others."""


class _StandInRecord(msgspec.Struct, frozen=True, array_like=True):
    key: StoredPackKey
    size: _Size
    profile: str
    stands_for: Annotated[tuple[StoredPackKey, ...], msgspec.Meta(max_length=MAX_STANDS_FOR)]


class SnapshotWriter:
    """Appends to ``file``, which must be empty: journal objects, then header packs, then stand-ins.

    Not thread-safe.  Durability is the caller's.
    """

    def __init__(self, file: BinaryIO, archive_id: bytes, about: About) -> None:
        self._writer = SectionWriter(file)
        self._kind: Section | None = None
        self._waiting: list[msgspec.Raw] = []
        self._waiting_bytes = 0
        write_head(self._writer, new_head(SNAPSHOT_OBJECT, archive_id))
        record = _AboutRecord(about.time_ns, about.writer, _sequence(about.sequence), about.headers)
        pack_section(self._writer, Section.SNAPSHOT, encode_wire(record), _LEVEL)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    def add_journal(self, sequence: int, data: bytes) -> None:
        """A journal object, as its bytes are."""
        self._add(Section.JOURNAL_COPIES, _JournalRecord(_sequence(sequence), data))

    def add_header(self, facts: HeaderFacts) -> None:
        """What a header pack says.  FormatError for values that a reader would refuse."""
        parts = encode_wire(tuple(map(_part_record, facts.parts)))
        self._add_header(facts.key, facts.size, msgspec.Raw(parts))

    def copy_header(self, other: SnapshotReader, key: ObjectKey, size: int) -> bool:
        """The same as another snapshot has it; False where it has not."""
        found = other.raw_header(key)
        if found is None or found.size != size:
            return False
        self._add_header(key, size, found.parts)
        return True

    def _add_header(self, key: ObjectKey, size: int, parts: msgspec.Raw) -> None:
        kind, digest = parse_pack_key(key)
        if kind is not PackKind.HEADER:
            raise FormatError(_WRITING, f"{key} is no header pack")
        self._add(Section.HEADER_FACTS, _HeaderRecord(digest, size, parts))

    def add_stand_in(self, facts: StandInFacts) -> None:
        """What a pack of frames says that is read in the place of others."""
        stands_for = tuple(map(stored_pack_key, facts.stands_for))
        self._add(
            Section.STAND_INS,
            _StandInRecord(stored_pack_key(facts.key), facts.size, facts.profile, stands_for),
        )

    def finish(self) -> ObjectKey:
        """Write what waits; returns the key of the object."""
        self._flush()
        self._writer.close()
        return snapshot_key(self._writer.sha256)

    def _add(self, kind: Section, record: msgspec.Struct) -> None:
        if kind is not self._kind:
            self._flush()
            self._kind = kind
        encoded = encode_wire(record)
        self._waiting.append(msgspec.Raw(encoded))
        self._waiting_bytes += len(encoded)
        if self._waiting_bytes > _SECTION_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._kind is not None and self._waiting:
            pack_section(self._writer, self._kind, encode_wire(self._waiting), _LEVEL)
        self._waiting, self._waiting_bytes = [], 0


class SnapshotReader:
    """Reads one snapshot of ``size`` bytes through ``read``; the caller has proven the bytes by their name.

    Not thread-safe.  Raises DamagedError, UnsupportedVersion, UnsupportedFeature, from each method.
    """

    def __init__(self, read: Read, size: int, name: str) -> None:
        self._read, self._size, self.name = read, size, name
        head_section, payload = self._section(0)
        head = decode_wire(payload, Head, name)
        if head_section.kind != Section.HEAD or head.kind != SNAPSHOT_OBJECT:
            raise DamagedError(name, "another kind of object")
        head.check(name)
        self.archive_id = head.archive_id
        section, payload = self._section(head_section.end)
        if section.kind != Section.SNAPSHOT:
            raise DamagedError(name, "does not say what it is", section.offset)
        record = decode_wire(payload, _AboutRecord, name)
        self.about = About(
            record.time_ns, record.writer, int.from_bytes(record.sequence, "little"), record.headers
        )
        self._start = section.end
        self._headers: dict[ObjectKey, tuple[int, int]] | None = None
        """Offset of the section of each header pack's facts, and its place there."""
        self._opened: tuple[int, tuple[_HeaderRecord, ...]] | None = None

    def journal(self) -> Iterator[tuple[int, bytes]]:
        """Sequence numbers and bytes of journal objects."""
        for section in self._sections(Section.JOURNAL_COPIES):
            for record in self._records(section, _JournalRecord):
                yield int.from_bytes(record.sequence, "little"), record.data

    def keys(self) -> Iterable[ObjectKey]:
        """The header packs whose facts it has."""
        return self._places().keys()

    def header(self, key: ObjectKey) -> HeaderFacts | None:
        """What a header pack says; None where that is not in it."""
        record = self.raw_header(key)
        if record is None:
            return None
        parts = decode_wire(bytes(record.parts), tuple[_PartRecord, ...], self.name)
        return HeaderFacts(key, record.size, tuple(_part_facts(part, self.name) for part in parts))

    def raw_header(self, key: ObjectKey) -> _HeaderRecord | None:
        """The stored form of it.  What lies beside it in the object is found fastest next."""
        place = self._places().get(key)
        if place is None:
            return None
        offset, number = place
        if self._opened is None or self._opened[0] != offset:
            section = parse_section_header(self._at(offset, SECTION_HEADER_BYTES), offset, self.name)
            self._opened = offset, self._records(section, _HeaderRecord)
        return self._opened[1][number]

    def stand_ins(self) -> Iterator[StandInFacts]:
        """What packs of frames say that are read in the place of others."""
        for section in self._sections(Section.STAND_INS):
            for record in self._records(section, _StandInRecord):
                stands_for = tuple(key_of_stored(*one) for one in record.stands_for)
                yield StandInFacts(key_of_stored(*record.key), record.size, record.profile, stands_for)

    def _places(self) -> dict[ObjectKey, tuple[int, int]]:
        if self._headers is None:
            self._headers = {}
            for section in self._sections(Section.HEADER_FACTS):
                for number, record in enumerate(self._records(section, _HeaderRecord)):
                    key = pack_key(PackKind.HEADER, record.digest.hex())
                    self._headers[key] = section.offset, number
        return self._headers

    def _sections(self, kind: Section) -> Iterator[SectionHeader]:
        offset = self._start
        while offset < self._size:
            header = parse_section_header(self._at(offset, SECTION_HEADER_BYTES), offset, self.name)
            if header.end > self._size:
                raise DamagedError(self.name, "truncated", offset)
            if header.kind == kind:
                yield header
            elif header.kind not in _KINDS and not header.optional:
                raise DamagedError(self.name, f"section of unknown kind {header.kind}", offset)
            offset = header.end

    def _records(self, section: SectionHeader, kind: type[_T]) -> tuple[_T, ...]:
        payload = self._section(section.offset)[1]
        return decode_wire(payload, tuple[kind, ...], self.name)  # type: ignore[valid-type]

    def _section(self, offset: int) -> tuple[SectionHeader, bytes]:
        header = parse_section_header(self._at(offset, SECTION_HEADER_BYTES), offset, self.name)
        if header.end > self._size:
            raise DamagedError(self.name, "truncated", offset)
        return open_section(self._at(offset, header.end - offset), offset, MAX_INDEX, self.name)

    def _at(self, offset: int, length: int) -> bytes:
        return read_exactly(self._read, offset, length, self.name)


_KINDS = frozenset({Section.JOURNAL_COPIES, Section.HEADER_FACTS, Section.STAND_INS})


_NO_DIGEST = bytes(_SHA256_BYTES)


def is_blank(entry: InstanceEntry) -> bool:
    """Whether an entry tells a position and nothing else: the instance was forgotten."""
    return entry.sha256 == _NO_DIGEST


def _blank(position: int) -> InstanceEntry:
    return InstanceEntry(position, 0, None, "", 0, 0, _NO_DIGEST, 0, (), "")


def _bare(entry: InstanceEntry) -> InstanceEntry:
    return InstanceEntry(
        entry.position,
        entry.name_level,
        entry.instance_number,
        entry.sop_instance_uid,
        entry.size,
        entry.mtime_ns,
        entry.sha256,
        entry.order,
        (),
        "",
    )


def _part_record(facts: PartFacts) -> _PartRecord:
    entries = facts.entries
    return _PartRecord(
        patient=PatientRecord.of(facts.patient),
        study=StudyRecord.of(facts.study),
        series=SeriesRecord.of(facts.series),
        part=facts.part,
        high_water=facts.high_water,
        needed=tuple(map(stored_pack_key, sorted(facts.needed))),
        rows=len(entries),
        position=encode_ints([one.position for one in entries]),
        name_level=encode_ints([one.name_level for one in entries]),
        has_number=encode_ints([one.instance_number is not None for one in entries]),
        number=encode_ints([one.instance_number for one in entries if one.instance_number is not None]),
        uid=encode_texts([one.sop_instance_uid for one in entries]),
        size=encode_ints([one.size for one in entries]),
        mtime=encode_ints([one.mtime_ns for one in entries]),
        order=encode_ints([one.order for one in entries]),
        sha256=b"".join(one.sha256 for one in entries),
    )


def _part_facts(record: _PartRecord, name: str) -> PartFacts:
    return PartFacts(
        record.patient.node(),
        record.study.node(),
        record.series.node(),
        record.part,
        dict(record.high_water),
        frozenset(key_of_stored(*one) for one in record.needed),
        _entries(record, name),
    )


def _entries(record: _PartRecord, name: str) -> list[InstanceEntry]:
    rows = record.rows
    if len(record.sha256) != rows * _SHA256_BYTES:
        raise DamagedError(name, "column of digests has another length")
    positions = _column(record.position, rows, 0, (1 << POSITION_BITS) - 1, name)
    levels = _column(record.name_level, rows, 0, 2, name)
    flags = _column(record.has_number, rows, 0, 1, name)
    given = iter(decode_ints(record.number, sum(flags), name).tolist())
    uids = decode_texts(record.uid, rows, name)
    sizes = _column(record.size, rows, 0, (1 << 48) - 1, name)
    times = decode_ints(record.mtime, rows, name).tolist()
    orders = decode_ints(record.order, rows, name).tolist()
    digests = [record.sha256[at : at + _SHA256_BYTES] for at in range(0, len(record.sha256), _SHA256_BYTES)]
    return [
        InstanceEntry(position, level, next(given) if flag else None, uid, size, mtime, digest, order, (), "")
        for position, level, flag, uid, size, mtime, digest, order in zip(
            positions, levels, flags, uids, sizes, times, digests, orders, strict=True
        )
    ]


def _column(column: IntColumn, rows: int, least: int, most: int, name: str) -> list[int]:
    values = decode_ints(column, rows, name)
    if rows and not (least <= int(values.min()) and int(values.max()) <= most):
        raise DamagedError(name, "impossible number in a table")
    found: list[int] = values.tolist()
    return found


def _sequence(number: int) -> bytes:
    return number.to_bytes(8, "little")
