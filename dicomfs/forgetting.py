"""Forgetting and holding: decisions about instances that outlive the index, every tier and every pack.

Order: journal on the local tier, index and spool, the journal on the other tiers, then objects that nobody
needs any more, with their keys.  From the first step on `recover` never brings back what was forgotten; a
crash after it is finished by the next opening of the archive.  What packs of other instances hold besides
stays in them, unreachable, and is told.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from dicomfs.collecting import Collector
from dicomfs.errors import DicomfsError, FormatError, TierError, UsageError
from dicomfs.format.journal import HoldsReleased, HoldsSet, InstancesForgotten, JournalEntry, ObjectsTainted
from dicomfs.index.catalog import Catalog
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal, apply_decision
from dicomfs.locks import locked
from dicomfs.model import INSTANCE_LEVEL, InstanceId, InstanceRow, Level, ObjectKey, Subject
from dicomfs.packs import PackSource
from dicomfs.paths import ArchivePaths
from dicomfs.recover import discard_forgotten
from dicomfs.spool import Spool
from dicomfs.tier_set import TierSet

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ForgetReport:
    """What was forgotten, and where something of it is left."""

    instances: int = 0
    bytes: int = 0
    """Of the files."""
    destroyed: int = 0
    """Objects that nobody else needed."""
    shared: list[ObjectKey] = field(default_factory=list)
    """Objects that hold something of them, and that others need."""
    shared_bytes: int = 0
    unshipped: list[tuple[str, str]] = field(default_factory=list)
    """Tiers that do not know of it yet, and why: `recover` from one of them alone would bring them back."""
    left: list[tuple[ObjectKey, str]] = field(default_factory=list)
    """Objects that could not be deleted yet, and why; gc does it."""


@dataclass(slots=True)
class _Stored:
    """Where the instances to be forgotten are stored."""

    headers: dict[ObjectKey, set[ObjectKey] | None] = field(default_factory=dict)
    """Header pack -> what its other instances need; None where it cannot be read."""
    packs: set[ObjectKey] = field(default_factory=set)


class Decisions:
    """Forgets, holds and releases in one archive.  Takes turns with acceptance: one lock orders them."""

    def __init__(
        self,
        paths: ArchivePaths,
        catalog: Catalog,
        spool: Spool,
        journal: Journal,
        tiers: TierSet,
        source: PackSource,
        collector: Collector,
    ) -> None:
        self._lock, self._mark = paths.accept_lock, paths.decision_mark
        self._catalog, self._spool, self._journal = catalog, spool, journal
        self._tiers, self._source, self._collector = tiers, source, collector

    def instances_of(self, subjects: Iterable[Subject]) -> list[InstanceRow]:
        """All instances of subjects; with one that is shown go the other versions of it.

        Raises:
            NotFoundError: there is no such instance.
        """
        found: dict[InstanceId, InstanceRow] = {}
        for subject in subjects:
            if subject.level == INSTANCE_LEVEL:
                row = self._catalog.row(InstanceId(subject.number, subject.position))
                rows = [row]
                if not row.version:
                    uid = row.sop_instance_uid
                    rows = [one for one in self._catalog.rows(row.id.series) if one.sop_instance_uid == uid]
            else:
                rows = [row for series in self._series_of(subject) for row in self._catalog.rows(series)]
            found |= {row.id: row for row in rows}
        return [found[instance] for instance in sorted(found)]

    def forget(self, instances: Collection[InstanceId], reason: str) -> ForgetReport:
        """Take instances out of the archive for ever.

        They are gone from the tree, and the journal of every tier that can be reached says so, when it
        returns.

        Raises:
            UsageError: one is held; nothing was forgotten.
            NotFoundError: there is none of this number.
            TierError, CatalogError: the journal or the index cannot be written.
        """
        report = ForgetReport()
        with locked(self._lock):
            rows = [self._catalog.row(instance) for instance in sorted(set(instances))]
            self._refuse_held(rows)
            stored = self._stored(rows)
            # Numbers must not be given out again, whatever comes between: the tombstone names them.
            self._decide(InstancesForgotten(tuple(row.id for row in rows), reason), stored)
        report.instances, report.bytes = len(rows), sum(row.size for row in rows)
        self._ship(report.unshipped)
        self._destroy(stored, report)
        return report

    def hold(self, subjects: Sequence[Subject], reason: str) -> list[tuple[str, str]]:
        """Keep what these are, have and will have from being forgotten; returns tiers not told, and why.

        Raises:
            TierError, CatalogError: the journal or the index cannot be written.
        """
        with locked(self._lock):
            self._decide(HoldsSet(tuple(subjects), reason))
        return self._shipped()

    def release(self, subjects: Sequence[Subject], reason: str) -> list[tuple[str, str]]:
        """End the holds on exactly these; as `hold`.

        Raises:
            UsageError: one of them is not held by itself.
        """
        with locked(self._lock):
            held = {hold.subject for hold in self._catalog.holds()}
            for subject in subjects:
                if subject not in held:
                    raise UsageError(
                        f"{subject_text(subject)} has no hold of its own; `dicomfs hold` lists all"
                    )
            self._decide(HoldsReleased(tuple(subjects), reason))
        return self._shipped()

    def finish(self) -> None:
        """Bring into effect what the journal says and an ended process did not; the lock is held."""
        entries: list[JournalEntry] = []
        for key in self._journal.list():
            try:
                entries += self._journal.read(key).entries
            except (FormatError, TierError) as problem:
                logger.error("journal object passed over", extra={"reason": str(problem)})  # noqa: TRY400
        for entry in entries:
            if isinstance(entry, InstancesForgotten):
                due = [one for one in entry.instances if not self._catalog.is_forgotten(one)]
                if due:
                    self._apply(InstancesForgotten(tuple(due)), self._stored(self._known(due)))
            elif isinstance(entry, HoldsSet | HoldsReleased):
                self._apply(entry)
        discard_forgotten(self._catalog, self._spool)
        self._mark.unlink(missing_ok=True)

    # deciding

    def _decide(self, entry: JournalEntry, stored: _Stored | None = None) -> None:
        """Journal a decision, then bring it into effect: the order is the crash contract."""
        self._mark.touch(0o600)
        entries: list[JournalEntry] = [entry]
        if stored is not None:
            # Whoever recovers must know what is to be purged, too.
            entries.append(ObjectsTainted(tuple(sorted(self._keys(stored)))))
        self._journal.append(entries)
        self._apply(entry, stored)
        self._mark.unlink()

    def _apply(self, entry: JournalEntry, stored: _Stored | None = None) -> None:
        with self._catalog.write() as writer:
            if stored is not None:
                _set_references(writer, stored)
            apply_decision(writer, entry)
            if stored is not None:
                keys = self._keys(stored)
                self._collector.condemn_now(writer, keys)
                # Others need these: they are packed again without what was forgotten.
                writer.note_tainted([key for key in keys if writer.is_used(key)])
        if isinstance(entry, InstancesForgotten):
            records = [self._catalog.spooled(instance) for instance in entry.instances]
            spooled = [record for record in records if record is not None]
            with self._catalog.write_spool() as writer_of_spool:
                writer_of_spool.remove([record.id for record in spooled])
            self._spool.release([(record.id, record.sha256) for record in spooled])

    def _refuse_held(self, rows: Iterable[InstanceRow]) -> None:
        for row in rows:
            hold = self._catalog.hold_on(row.id)
            if hold is not None:
                raise UsageError(
                    f"{subject_text(hold.subject)} is held: nothing was forgotten; "
                    "`dicomfs hold --release` ends a hold"
                )

    def _known(self, instances: Iterable[InstanceId]) -> list[InstanceRow]:
        rows = {row.id: row for series in {i.series for i in instances} for row in self._catalog.rows(series)}
        return [rows[instance] for instance in instances if instance in rows]

    # what is stored, and goes

    def _stored(self, rows: Iterable[InstanceRow]) -> _Stored:
        """What holds these instances, and what their header packs need without them."""
        places: dict[ObjectKey, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        for row in rows:
            if self._catalog.is_packed(row.id):
                place = self._catalog.part_of(row.id)
                places[place.header_key][place.part_index].add(place.row)
        stored = _Stored()
        for header, parts in places.items():
            try:
                gone, kept = self._needs(header, parts)
            except (TierError, FormatError) as problem:
                logger.warning("header pack not read", extra={"object": header, "reason": str(problem)})
                stored.headers[header] = None
                continue
            stored.headers[header] = kept
            stored.packs |= gone
        return stored

    def _needs(self, header: ObjectKey, parts: dict[int, set[int]]) -> tuple[set[ObjectKey], set[ObjectKey]]:
        """What rows of a header pack need that go, and what those need that stay."""
        gone: set[ObjectKey] = set()
        kept: set[ObjectKey] = set()
        for index, rows in self._catalog.places_in(header).items():
            leaving = parts.get(index, set())
            gone |= self._source.needs(header, index, leaving)
            kept |= self._source.needs(header, index, set(rows) - leaving)
        return gone, kept

    def _destroy(self, stored: _Stored, report: ForgetReport) -> None:
        keys = self._keys(stored)
        there = {key: record for key in keys if (record := self._catalog.find_object(key)) is not None}
        report.left = self._collector.destroy(keys)
        unfinished = {key for key, _ in report.left}
        for key, record in there.items():
            if self._catalog.is_used(key):
                report.shared.append(key)
                report.shared_bytes += record.size
            elif key not in unfinished:
                report.destroyed += 1

    def _keys(self, stored: _Stored) -> set[ObjectKey]:
        """All objects that may be needed no more: those that are read, and what they stand in for."""
        keys = {*stored.headers, *stored.packs}
        for key in stored.packs:
            placed, family = self._catalog.placed(key), self._catalog.family(key)
            keys |= {placed, *self._catalog.names_of(placed)}
            keys |= set() if family is None else {one.key for one in family.members}
        return keys

    def _shipped(self) -> list[tuple[str, str]]:
        unshipped: list[tuple[str, str]] = []
        self._ship(unshipped)
        return unshipped

    def _ship(self, unshipped: list[tuple[str, str]]) -> None:
        for name in self._tiers.remote:
            try:
                self._journal.ship(self._tiers.writable(name))
            except DicomfsError as problem:
                unshipped.append((name, str(problem)))

    def _series_of(self, subject: Subject) -> list[int]:
        if subject.level == Level.SERIES:
            return [subject.number]
        if subject.level == Level.STUDY:
            return [series.number for series in self._catalog.series_of(subject.number)]
        return [
            series.number
            for study in self._catalog.studies(subject.number)
            for series in self._catalog.series_of(study.number)
        ]


def subject_text(subject: Subject) -> str:
    """A subject as errors name it: by its number, never by a patient's attributes."""
    if subject.level == INSTANCE_LEVEL:
        return f"instance {subject.number}/{subject.position}"
    return f"{Level(subject.level).name.lower()} {subject.number}"


def _set_references(writer: CatalogWriter, stored: _Stored) -> None:
    for header, needed in stored.headers.items():
        if needed is not None:
            writer.set_references(header, sorted(needed), may_be_missing=True)
