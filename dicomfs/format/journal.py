"""Journal objects: decisions that no file implies, in small immutable objects.

Owns their values and stored form.  Does not decide when they are written: before what they announce takes
effect (docs/architecture.md).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from dicomfs.errors import DamagedError, FormatError, UnsupportedFeature
from dicomfs.format.framing import SectionHeader, SectionWriter, open_section, parse_section_header
from dicomfs.format.head import Head, new_head, write_head
from dicomfs.format.keys import StoredPackKey, key_of_stored, stored_pack_key
from dicomfs.format.nodes import PatientRecord, SeriesNumber, SeriesRecord, StudyRecord
from dicomfs.format.version import JOURNAL_OBJECT, MAX_INDEX, Section
from dicomfs.format.wire import decode_wire, encode_wire, pack_section
from dicomfs.model import (
    INSTANCE_LEVEL,
    POSITION_BITS,
    ConflictClass,
    InstanceId,
    Level,
    ObjectKey,
    PatientNode,
    SeriesNode,
    StudyNode,
    Subject,
)

_ARTEFACT = "journal object"
_LEVEL = 12
_NODES, _COUNTERS, _VERSIONS, _PINS = 1, 2, 3, 10
_FORGOTTEN, _HELD, _RELEASED, _TAINTED = 11, 12, 13, 14

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 58)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Position = Annotated[int, msgspec.Meta(ge=0, lt=1 << POSITION_BITS)]


@dataclass(frozen=True, slots=True)
class NodesMade:
    """Patients, studies and series with the folder names they keep for ever."""

    patients: tuple[PatientNode, ...] = ()
    studies: tuple[StudyNode, ...] = ()
    series: tuple[SeriesNode, ...] = ()


@dataclass(frozen=True, slots=True)
class CountersReserved:
    """Numbers below these may have been given out, whatever else survives."""

    patient: int
    study: int
    series: int


@dataclass(frozen=True, slots=True)
class VersionDecision:
    """An instance yields its place to another one with the same SOP Instance UID.

    Takes effect only if both exist: the decision is written before the newer one's bytes are in place.
    """

    instance: InstanceId
    yields_to: InstanceId
    version: int
    """The number under which ``versions/`` shows the instance that yields; 0 is shown under ``patients/``."""
    conflict: ConflictClass


@dataclass(frozen=True, slots=True)
class VersionsDecided:
    """Decisions about instances that share a SOP Instance UID."""

    decisions: tuple[VersionDecision, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class PinsChanged:
    """Series whose objects stay on the local tier from now on, and series for which that ends."""

    pinned: tuple[int, ...] = ()
    unpinned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class InstancesForgotten:
    """Tombstones: these instances do not exist, whatever packs and the spool hold of them."""

    instances: tuple[InstanceId, ...]
    """By series and position.  Bytes that are accepted again later are another instance."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ObjectsTainted:
    """Packs that held something of what was forgotten when it was."""

    keys: tuple[ObjectKey, ...]


@dataclass(frozen=True, slots=True)
class HoldsSet:
    """What these subjects are or have, now and later, may not be forgotten."""

    subjects: tuple[Subject, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldsReleased:
    """Ends the holds on exactly these subjects."""

    subjects: tuple[Subject, ...]
    reason: str = ""


JournalEntry = (
    NodesMade
    | CountersReserved
    | VersionsDecided
    | PinsChanged
    | InstancesForgotten
    | ObjectsTainted
    | HoldsSet
    | HoldsReleased
)


@dataclass(frozen=True, slots=True)
class Journal:
    """One decoded journal object."""

    sequence: int
    """Also in the object's key: an object under another key than its own is refused by ``recover``."""
    archive_id: bytes
    time_ns: int
    """When it was written, nanoseconds since 1970, clock of the writer."""
    writer: str
    """Version of dicomfs that wrote it."""
    entries: tuple[JournalEntry, ...]


class _NodesRecord(msgspec.Struct, frozen=True, array_like=True, tag=_NODES):
    patients: tuple[PatientRecord, ...]
    studies: tuple[StudyRecord, ...]
    series: tuple[SeriesRecord, ...]

    @classmethod
    def of(cls, entry: NodesMade) -> _NodesRecord:
        return cls(
            tuple(map(PatientRecord.of, entry.patients)),
            tuple(map(StudyRecord.of, entry.studies)),
            tuple(map(SeriesRecord.of, entry.series)),
        )

    def entry(self) -> NodesMade:
        return NodesMade(
            tuple(record.node() for record in self.patients),
            tuple(record.node() for record in self.studies),
            tuple(record.node() for record in self.series),
        )


class _CountersRecord(msgspec.Struct, frozen=True, array_like=True, tag=_COUNTERS):
    patient: _Number
    study: _Number
    series: _Number

    @classmethod
    def of(cls, entry: CountersReserved) -> _CountersRecord:
        return cls(entry.patient, entry.study, entry.series)

    def entry(self) -> CountersReserved:
        return CountersReserved(self.patient, self.study, self.series)


class _DecisionRecord(msgspec.Struct, frozen=True, array_like=True):
    series: SeriesNumber
    position: _Position
    to_series: SeriesNumber
    to_position: _Position
    version: _Count
    conflict: ConflictClass


class _VersionsRecord(msgspec.Struct, frozen=True, array_like=True, tag=_VERSIONS):
    decisions: tuple[_DecisionRecord, ...]

    @classmethod
    def of(cls, entry: VersionsDecided) -> _VersionsRecord:
        return cls(
            tuple(
                _DecisionRecord(
                    d.instance.series,
                    d.instance.position,
                    d.yields_to.series,
                    d.yields_to.position,
                    d.version,
                    d.conflict,
                )
                for d in entry.decisions
            )
        )

    def entry(self) -> VersionsDecided:
        return VersionsDecided(
            tuple(
                VersionDecision(
                    InstanceId(d.series, d.position),
                    InstanceId(d.to_series, d.to_position),
                    d.version,
                    d.conflict,
                )
                for d in self.decisions
            )
        )


class _PinsRecord(msgspec.Struct, frozen=True, array_like=True, tag=_PINS):
    pinned: tuple[SeriesNumber, ...]
    unpinned: tuple[SeriesNumber, ...]

    @classmethod
    def of(cls, entry: PinsChanged) -> _PinsRecord:
        return cls(entry.pinned, entry.unpinned)

    def entry(self) -> PinsChanged:
        return PinsChanged(self.pinned, self.unpinned)


class _ForgottenRecord(msgspec.Struct, frozen=True, array_like=True, tag=_FORGOTTEN):
    series: tuple[tuple[SeriesNumber, tuple[_Position, ...]], ...]
    """Series, and positions in it."""
    reason: str

    @classmethod
    def of(cls, entry: InstancesForgotten) -> _ForgottenRecord:
        series = itertools.groupby(entry.instances, key=lambda instance: instance.series)
        return cls(
            tuple((number, tuple(one.position for one in instances)) for number, instances in series),
            entry.reason,
        )

    def entry(self) -> InstancesForgotten:
        instances = (InstanceId(series, position) for series, found in self.series for position in found)
        return InstancesForgotten(tuple(instances), self.reason)


class _TaintedRecord(msgspec.Struct, frozen=True, array_like=True, tag=_TAINTED):
    keys: tuple[StoredPackKey, ...]

    @classmethod
    def of(cls, entry: ObjectsTainted) -> _TaintedRecord:
        return cls(tuple(map(stored_pack_key, entry.keys)))

    def entry(self) -> ObjectsTainted:
        return ObjectsTainted(tuple(key_of_stored(*one) for one in self.keys))


class _SubjectRecord(msgspec.Struct, frozen=True, array_like=True):
    level: Annotated[int, msgspec.Meta(ge=int(Level.PATIENT), le=INSTANCE_LEVEL)]
    number: SeriesNumber
    position: _Position

    @classmethod
    def of(cls, subject: Subject) -> _SubjectRecord:
        return cls(subject.level, subject.number, subject.position)

    def subject(self) -> Subject:
        return Subject(self.level, self.number, self.position)


class _HeldRecord(msgspec.Struct, frozen=True, array_like=True, tag=_HELD):
    subjects: tuple[_SubjectRecord, ...]
    reason: str

    def entry(self) -> HoldsSet:
        return HoldsSet(tuple(one.subject() for one in self.subjects), self.reason)


class _ReleasedRecord(msgspec.Struct, frozen=True, array_like=True, tag=_RELEASED):
    subjects: tuple[_SubjectRecord, ...]
    reason: str

    def entry(self) -> HoldsReleased:
        return HoldsReleased(tuple(one.subject() for one in self.subjects), self.reason)


class _Tag(msgspec.Struct, frozen=True, array_like=True):
    """The first element of any entry."""

    tag: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class _JournalRecord(msgspec.Struct, frozen=True, array_like=True):
    """Payload of a JOURNAL section."""

    sequence: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    time_ns: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    writer: str
    entries: tuple[msgspec.Raw, ...]
    """Each an array: tag, fields.  Kept raw so that an unknown tag is named instead of called damage."""


def encode_journal(
    entries: Sequence[JournalEntry], sequence: int, archive_id: bytes, time_ns: int, writer: str
) -> bytes:
    """The bytes of a journal object; FormatError for values that a reader would refuse."""
    if not 0 <= sequence < 1 << 64:
        raise FormatError(_ARTEFACT, f"sequence number {sequence}")
    raw = tuple(msgspec.Raw(_encoded(entry)) for entry in entries)
    record = _JournalRecord(sequence.to_bytes(8, "little"), time_ns, writer, raw)
    file = io.BytesIO()
    sections = SectionWriter(file)
    write_head(sections, new_head(JOURNAL_OBJECT, archive_id))
    pack_section(sections, Section.JOURNAL, encode_wire(record), _LEVEL)
    data = file.getvalue()
    if decode_journal(data).entries != tuple(entries):
        raise FormatError(_ARTEFACT, "the entries do not come back as they were given")
    return data


def decode_journal(data: bytes) -> Journal:
    """The checked values.  Raises DamagedError, UnsupportedVersion, UnsupportedFeature."""
    head_section, head_payload = _section(data, 0)
    head = decode_wire(head_payload, Head, _ARTEFACT)
    if head_section.kind != Section.HEAD or head.kind != JOURNAL_OBJECT:
        raise DamagedError(_ARTEFACT, "another kind of object")
    head.check(_ARTEFACT)
    section, payload = _section(data, head_section.end)
    while section.kind != Section.JOURNAL and section.optional:
        section, payload = _section(data, section.end)
    if section.kind != Section.JOURNAL or section.end != len(data):
        raise DamagedError(_ARTEFACT, "unexpected section", section.offset)
    record = decode_wire(payload, _JournalRecord, _ARTEFACT)
    sequence = int.from_bytes(record.sequence, "little")
    entries = tuple(_entry(bytes(raw)) for raw in record.entries)
    return Journal(sequence, head.archive_id, record.time_ns, record.writer, entries)


def _section(data: bytes, offset: int) -> tuple[SectionHeader, bytes]:
    header = parse_section_header(data[offset : offset + 64], offset, _ARTEFACT)
    if header.end > len(data):
        raise DamagedError(_ARTEFACT, "truncated", offset)
    return open_section(data[offset : header.end], offset, MAX_INDEX, _ARTEFACT)


def _encoded(entry: JournalEntry) -> bytes:
    match entry:
        case NodesMade():
            return encode_wire(_NodesRecord.of(entry))
        case CountersReserved():
            return encode_wire(_CountersRecord.of(entry))
        case VersionsDecided():
            return encode_wire(_VersionsRecord.of(entry))
        case PinsChanged():
            return encode_wire(_PinsRecord.of(entry))
        case InstancesForgotten():
            return encode_wire(_ForgottenRecord.of(entry))
        case ObjectsTainted():
            return encode_wire(_TaintedRecord.of(entry))
        case HoldsSet():
            return encode_wire(_HeldRecord(tuple(map(_SubjectRecord.of, entry.subjects)), entry.reason))
        case HoldsReleased():
            return encode_wire(_ReleasedRecord(tuple(map(_SubjectRecord.of, entry.subjects)), entry.reason))


def _entry(raw: bytes) -> JournalEntry:
    tag = decode_wire(raw, _Tag, _ARTEFACT).tag
    kind = _RECORDS.get(tag)
    if kind is None:
        raise UnsupportedFeature(_ARTEFACT, [f"journal entry kind {tag}"])
    return decode_wire(raw, kind, _ARTEFACT).entry()


_Record = (
    _NodesRecord
    | _CountersRecord
    | _VersionsRecord
    | _PinsRecord
    | _ForgottenRecord
    | _TaintedRecord
    | _HeldRecord
    | _ReleasedRecord
)
_RECORDS: dict[int, type[_Record]] = {
    _NODES: _NodesRecord,
    _COUNTERS: _CountersRecord,
    _VERSIONS: _VersionsRecord,
    _PINS: _PinsRecord,
    _FORGOTTEN: _ForgottenRecord,
    _TAINTED: _TaintedRecord,
    _HELD: _HeldRecord,
    _RELEASED: _ReleasedRecord,
}
