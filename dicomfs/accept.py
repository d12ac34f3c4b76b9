"""Accepting files: from bytes on disk to a durable instance with a number and a name.

The order is what makes "accepted means durable" true (docs/durability.md): the bytes are synced under a
temporary name → decisions that no file implies (numbers, names, versions) go to a journal object → the
files are renamed into the spool and the folders synced → the catalog learns of them.  A crash between any
two steps leaves either nothing or an instance that a rebuild of the index finds again.

Owns numbers, names and conflicts.  Who may hand in files (import, later the SCP and ``incoming/``) is
decided above; nothing here reads pixels.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dicomfs.dicom.attributes import Attributes
from dicomfs.dicom.compare import complete, conflict_class
from dicomfs.dicom.part10 import scan
from dicomfs.errors import CodecError, FormatError, MismatchError, NotFoundError, ObjectNotFound
from dicomfs.format.journal import CountersReserved, JournalEntry, NodesMade, VersionDecision, VersionsDecided
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal
from dicomfs.locks import locked
from dicomfs.model import (
    ConflictClass,
    InstanceId,
    InstanceRow,
    Level,
    PatientNode,
    SeriesNode,
    StudyNode,
)
from dicomfs.new_nodes import new_patient, new_series, new_study
from dicomfs.paths import ArchivePaths
from dicomfs.reconstruct import Reconstructor
from dicomfs.series_names import SeriesNames
from dicomfs.spool import Spool

NUMBER_BLOCK = 1024
"""Numbers reserved at once: a rebuilt catalog goes on above the last block that was begun."""
_COMPARE_BYTES = 1 << 30
_MOST_STATES = 64
"""Series remembered between batches: an instance that comes alone must not cost a scan of its series."""
_DAMAGE = (FormatError, MismatchError, CodecError, ObjectNotFound)
"""What reading an instance raises when its stored bytes are lost, not merely out of reach."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that waits to be accepted: synced bytes under a temporary name of the spool."""

    temporary: Path
    size: int
    mtime_ns: int
    sha256: bytes
    attributes: Attributes
    provisional: bool = False
    """Whether it may be withdrawn as long as it is not packed, see `dicomfs.withdrawing`."""


class Outcome(enum.Enum):
    """What became of a candidate."""

    NEW = "new"
    ALREADY = "already"
    CONFLICT = "conflict"
    """New bytes under a UID that the archive knows; both are kept."""


class Accepted(NamedTuple):
    """What became of a candidate, and the instance that holds its bytes."""

    outcome: Outcome
    instance: InstanceId


@dataclass(slots=True)
class _SeriesState:
    """What acceptance has to know of one series, read once per batch and kept up to date."""

    next_position: int
    names: SeriesNames


@dataclass(slots=True)
class _Batch:
    """Decisions of one batch that are not written yet."""

    patients: list[PatientNode] = field(default_factory=list)
    studies: list[StudyNode] = field(default_factory=list)
    series: list[SeriesNode] = field(default_factory=list)
    patient_keys: dict[tuple[str, str, str], PatientNode] = field(default_factory=dict)
    study_keys: dict[tuple[int, str], StudyNode] = field(default_factory=dict)
    series_keys: dict[tuple[int, str], SeriesNode] = field(default_factory=dict)
    states: dict[int, _SeriesState] = field(default_factory=dict)
    uids: set[str] = field(default_factory=set)
    records: list[tuple[Candidate, SpooledRecord]] = field(default_factory=list)
    versions: list[VersionDecision] = field(default_factory=list)
    settled: list[InstanceId] = field(default_factory=list)
    """Spooled instances whose bytes came again: nobody withdraws them any more."""

    def decides(self) -> bool:
        """Whether there is anything for the catalog besides the instances."""
        return bool(self.patients or self.studies or self.series or self.versions)

    def nodes(self) -> Iterator[tuple[Level, Sequence[PatientNode | StudyNode | SeriesNode]]]:
        """New nodes by level, numbers ascending."""
        yield Level.PATIENT, self.patients
        yield Level.STUDY, self.studies
        yield Level.SERIES, self.series


class Acceptor:
    """Turns candidates into instances.  One at a time per archive: a lock file orders the processes.

    ``repair`` brings the spool's index in line with the spool folder; it runs when an earlier acceptance
    did not end (its mark is still there).
    """

    def __init__(
        self,
        paths: ArchivePaths,
        catalog: Catalog,
        spool: Spool,
        journal: Journal,
        reconstructor: Reconstructor,
        repair: Callable[[], None],
    ) -> None:
        self._lock = paths.accept_lock
        self._mark = paths.accept_mark
        self._repair = repair
        self._states: tuple[int, dict[int, _SeriesState]] = -1, {}
        self._catalog, self._spool, self._journal, self._reconstructor = (
            catalog,
            spool,
            journal,
            reconstructor,
        )

    def accept(self, candidates: Sequence[Candidate]) -> list[Accepted]:
        """Accept a batch; what became of it in the order of the candidates.  Durable when it returns.

        Names and numbers depend on the set of candidates, not on their order.
        """
        waiting = sorted(range(len(candidates)), key=lambda index: _order_of(candidates[index]))
        outcomes: dict[int, Accepted] = {}
        with locked(self._lock):
            if self._mark.exists():
                self._repair()
                self._mark.unlink()
            while waiting:
                batch = _Batch(states=self._known_states())
                repeated: list[int] = []
                for index in waiting:
                    if candidates[index].attributes.sop_instance_uid in batch.uids:
                        # What came first must be in the catalog to be compared with.
                        repeated.append(index)
                    else:
                        outcomes[index] = self._decide(batch, candidates[index])
                self._write(batch)
                self._states = self._catalog.last_change(), batch.states
                waiting = repeated
        return [outcomes[index] for index in range(len(candidates))]

    def _known_states(self) -> dict[int, _SeriesState]:
        """What the last batch knew of its series, unless anybody has changed the archive since."""
        change, states = self._states
        self._states = -1, {}
        current = change == self._catalog.last_change() and len(states) <= _MOST_STATES
        return states if current else {}

    def _decide(self, batch: _Batch, candidate: Candidate) -> Accepted:
        uid = candidate.attributes.sop_instance_uid
        there = self.find(uid, candidate.size, candidate.sha256)
        if there is not None:
            if there.spooled:
                batch.settled.append(there.id)
            return Accepted(Outcome.ALREADY, there.id)
        series = self._series(batch, candidate.attributes)
        state = self._state(batch, series.number)
        name, level, number = state.names.take(uid, candidate.attributes.instance_number)
        instance = InstanceId(series.number, state.next_position)
        state.next_position += 1
        batch.uids.add(uid)
        record = SpooledRecord(
            id=instance,
            sop_instance_uid=uid,
            number=number,
            name_level=level,
            size=candidate.size,
            mtime_ns=candidate.mtime_ns,
            sha256=candidate.sha256,
            provisional=candidate.provisional,
        )
        batch.records.append((candidate, record))
        shown = [row for row in self._known(uid) if row.version == 0]
        if not shown:
            return Accepted(Outcome.NEW, instance)
        conflict, newer_wins = self._judge(shown[0], candidate)
        loser_id, loser_name = (shown[0].id, shown[0].name) if newer_wins else (instance, name)
        version = self._state(batch, loser_id.series).names.next_version(loser_name)
        winner_id = instance if newer_wins else shown[0].id
        batch.versions.append(VersionDecision(loser_id, winner_id, version, conflict))
        return Accepted(Outcome.CONFLICT, instance)

    def find(self, uid: str, size: int, sha256: bytes) -> InstanceRow | None:
        """The instance that holds exactly these bytes, if there is one that can be read."""
        return next((row for row in self._known(uid) if self._same_bytes(row, size, sha256)), None)

    def _known(self, uid: str) -> Iterator[InstanceRow]:
        for instance in self._catalog.by_uid(uid):
            with contextlib.suppress(NotFoundError):  # forgotten or withdrawn meanwhile
                yield self._catalog.row(instance)

    def _same_bytes(self, row: InstanceRow, size: int, sha256: bytes) -> bool:
        """Whether an instance holds exactly the bytes with this digest; one that is damaged does not."""
        if row.size != size or row.sha256_start != sha256[:8]:
            return False
        try:
            reader = self._reconstructor.open(row.id)
        except (*_DAMAGE, NotFoundError):
            return False
        try:
            return reader.sha256 == sha256
        finally:
            reader.close()

    def _judge(self, shown: InstanceRow, candidate: Candidate) -> tuple[ConflictClass, bool]:
        """How the candidate differs from what is shown, and whether it takes its place."""
        if self._catalog.is_provisional(shown.id):
            # What may be withdrawn stands in nobody's way.
            return ConflictClass.TRUNCATED, True
        if max(shown.size, candidate.size) > _COMPARE_BYTES:
            # Too large to hold twice: treated as other pixels, the first stays shown.
            return ConflictClass.PIXELS, False
        try:
            old = self._read_whole(shown.id)
        except _DAMAGE:
            # What is shown can no longer be read, so it is the less complete one.
            return ConflictClass.TRUNCATED, True
        with (
            candidate.temporary.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as new,
        ):
            conflict = conflict_class(old, new)
            if candidate.provisional:
                return conflict, False
            if conflict is ConflictClass.TRUNCATED:
                return conflict, complete(scan(new)) and (not complete(scan(old)) or len(new) > len(old))
            return conflict, conflict is not ConflictClass.PIXELS

    def _read_whole(self, instance: InstanceId) -> bytes:
        reader = self._reconstructor.open(instance)
        try:
            return reader.read(0, reader.size)
        finally:
            reader.close()

    def _series(self, batch: _Batch, a: Attributes) -> SeriesNode:
        patient = self._patient(batch, a)
        study_key = (patient.number, a.study_uid)
        study = batch.study_keys.get(study_key) or self._catalog.find_study(*study_key)
        if study is None:
            study = new_study(self._number(Level.STUDY, len(batch.studies)), patient.number, a)
            batch.studies.append(study)
        batch.study_keys[study_key] = study
        series_key = (study.number, a.series_uid)
        series = batch.series_keys.get(series_key) or self._catalog.find_series(*series_key)
        if series is None:
            series = new_series(self._number(Level.SERIES, len(batch.series)), study.number, a)
            batch.series.append(series)
        batch.series_keys[series_key] = series
        return series

    def _patient(self, batch: _Batch, a: Attributes) -> PatientNode:
        key = (a.issuer, a.patient_id, a.patient_name)
        patient = batch.patient_keys.get(key) or self._catalog.find_patient(*key)
        if patient is None:
            patient = new_patient(self._number(Level.PATIENT, len(batch.patients)), a)
            batch.patients.append(patient)
        batch.patient_keys[key] = patient
        return patient

    def _number(self, level: Level, ahead: int) -> int:
        """The next free number; a block is reserved in the journal before any of its numbers is used."""
        number = self._catalog.next_number(level) + ahead
        if number == 1 or number % NUMBER_BLOCK == 0:
            marks = number_marks(self._catalog)
            marks[level.name.lower()] = number - number % NUMBER_BLOCK + NUMBER_BLOCK
            self._journal.append([CountersReserved(**marks)])
        return number

    def _state(self, batch: _Batch, series: int) -> _SeriesState:
        state = batch.states.get(series)
        if state is None:
            state = _SeriesState(self._catalog.next_position(series), SeriesNames(self._catalog.rows(series)))
            batch.states[series] = state
        return state

    def _write(self, batch: _Batch) -> None:
        """Make a batch durable, then visible: the order of these steps is the crash contract."""
        if batch.settled:
            with self._catalog.write_spool() as spooled:
                spooled.settle(batch.settled)
        if not batch.records:
            return
        self._reserve(batch)
        self._announce(batch)
        if batch.decides():
            with self._catalog.write() as writer:
                for patient in batch.patients:
                    writer.add_patient(patient)
                for study in batch.studies:
                    writer.add_study(study)
                for series in batch.series:
                    writer.add_series(series)
                # One that yields before it is listed never shows beside what it yields to.
                self._set_versions(writer, batch, new=True)
        self._mark.touch(0o600)
        self._spool.admit((c.temporary, record.id, record.sha256) for c, record in batch.records)
        with self._catalog.write_spool() as spooled:
            for _, record in batch.records:
                spooled.add(record)
        if batch.versions:
            with self._catalog.write() as writer:
                self._set_versions(writer, batch, new=False)
        self._mark.unlink()

    def _set_versions(self, writer: CatalogWriter, batch: _Batch, *, new: bool) -> None:
        listed = {record.id for _, record in batch.records}
        for decided in batch.versions:
            if (decided.instance in listed) is new:
                writer.set_version(decided.instance, decided.version, decided.conflict)

    def _reserve(self, batch: _Batch) -> None:
        """Use up the numbers that the journal is about to name: even if we stop, they serve no others."""
        if not (batch.versions or batch.patients or batch.studies or batch.series):
            return
        with self._catalog.write() as writer:
            for level, nodes in batch.nodes():
                if nodes:
                    writer.raise_counter(level, nodes[-1].number + 1)
            for number, state in batch.states.items():
                writer.raise_position(number, state.next_position)

    def _announce(self, batch: _Batch) -> None:
        entries: list[JournalEntry] = []
        if batch.patients or batch.studies or batch.series:
            entries.append(NodesMade(tuple(batch.patients), tuple(batch.studies), tuple(batch.series)))
        if batch.versions:
            entries.append(VersionsDecided(tuple(batch.versions)))
        if entries:
            self._journal.append(entries)


def number_marks(catalog: Catalog) -> dict[str, int]:
    """Per level, the end of the block of numbers that is in use."""
    return {
        level.name.lower(): -(-catalog.next_number(level) // NUMBER_BLOCK) * NUMBER_BLOCK for level in Level
    }


def _order_of(candidate: Candidate) -> tuple[object, ...]:
    a = candidate.attributes
    return (
        a.issuer,
        a.patient_id,
        a.patient_name,
        a.study_uid,
        a.series_uid,
        a.instance_number is None,
        a.instance_number or 0,
        a.sop_instance_uid,
        candidate.mtime_ns,
        candidate.sha256,
    )
