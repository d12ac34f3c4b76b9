"""Moving an archive's objects between its tiers on request: copy, evict, warm.

Owns what is moved in which order and what the report says; the steps of a single copy and their order are
`dicomfs.copies`.  Packs go before the header packs that name them: a header pack on a tier counts as
committed for `recover`, so it must never be there without them.  The journal goes with every copy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.copies import Copies, LastCopy
from dicomfs.errors import (
    CatalogError,
    DicomfsError,
    ObjectCold,
    TierError,
    TierFull,
    UsageError,
)
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import ObjectKey, is_header_pack
from dicomfs.object_facts import objects_of
from dicomfs.packing.run import Stopped
from dicomfs.pins import Pins
from dicomfs.progress import Progress, SharedProgress
from dicomfs.tier_set import LOCAL, TierSet

_NOTED_AT_ONCE = 1000
"""More would keep the catalog's one writer busy for long."""
_ASKED_AT_ONCE = 8
_LOOKED_AT = 100
"""Cold objects that a tier is asked about each time."""


@dataclass(slots=True)
class TieringReport:
    """What a run moved."""

    objects: int = 0
    bytes: int = 0
    """Of the objects as they were: a pack that was coded anew on the way takes fewer there, or more."""
    already: int = 0
    """Objects that were there, or gone, before."""
    journal: int = 0
    """Journal objects that were shipped."""
    kept: list[tuple[str, str]] = field(default_factory=list)
    """Copies that were not evicted because no other is proven: (object, reason)."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(object, reason)."""
    cold: list[ObjectRecord] = field(default_factory=list)
    """Objects that have to be restored from a cold storage class first."""
    stopped: bool = False

    def add(self, other: TieringReport) -> None:
        """Count what another run moved, too."""
        self.objects += other.objects
        self.bytes += other.bytes
        self.already += other.already
        self.journal += other.journal
        self.kept += other.kept
        self.failed += other.failed
        self.cold += other.cold
        self.stopped |= other.stopped


Place = Callable[[ObjectKey, str, threading.Event], bool]
"""Puts an object, or a twin of it, on a tier, until somebody wants it to stop; False where it was there."""


class Tiering:
    """Copies, evicts and warms objects of one archive."""

    def __init__(
        self,
        catalog: Catalog,
        tiers: TierSet,
        copies: Copies,
        journal: Journal,
        minimum_copies: int = 1,
        place: Place | None = None,
    ) -> None:
        """``minimum_copies`` are left of every object at least when one is evicted.

        ``place`` puts a copy or a twin on a tier; without it, objects are copied as they are.
        """
        self._catalog, self._tiers, self._copies, self._journal = catalog, tiers, copies, journal
        self._minimum_copies = minimum_copies
        self._place = place or (lambda key, to, _: copies.place(key, to))

    def objects(self, series: Iterable[int] | None = None) -> list[ObjectRecord]:
        """Every object, or all that instances of these series need, header packs last.

        Packs have the copies of their twins as their own; what is lost has no copy.
        """
        if series is None:
            return self.ordered(self._catalog.held())
        return self.ordered(self._held(key) for key in sorted(objects_of(self._catalog, series)))

    def _held(self, key: ObjectKey) -> ObjectRecord:
        return self._catalog.find_held(key) or ObjectRecord(key, 0, {})

    def on(self, tier: str, records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
        """What a tier holds of these: of a pack with twins, the one that takes room there."""
        families = [self._catalog.family(record.key) for record in records]
        held = [None if family is None else family.on(tier) for family in families]
        return [record for record in held if record is not None]

    @staticmethod
    def ordered(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
        """Header packs last."""
        return sorted(records, key=lambda record: (is_header_pack(record.key), record.key))

    def copy(
        self,
        to: str,
        objects: Sequence[ObjectRecord],
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> TieringReport:
        """Put proven copies on a tier; what is there already is passed over.

        Raises:
            UsageError: there is no such tier, it is another archive's, or it needs a key that is missing.
            TierError: it cannot be asked.
        """
        tier = self._tiers.writable(to)
        report = TieringReport()
        due = [record for record in objects if to not in record.tiers]
        report.already = len(objects) - len(due)
        if to != LOCAL:
            due += self._named(due, to)
        headers = [record for record in due if is_header_pack(record.key)]
        others = [record for record in due if not is_header_pack(record.key)]
        progress.start(sum(record.size for record in due), f"copying to {to}")
        stop = stop or threading.Event()
        run = _Run(report, SharedProgress(progress), stop, tier.traits.connections)
        run.each(others, lambda record: self._place(record.key, to, stop))
        complete = not report.failed and not report.cold and not report.stopped
        # A header pack without what it names is of no use to who recovers.
        run.each(
            headers if complete or to == LOCAL else self._whole(headers, to),
            lambda record: self._place(record.key, to, stop),
        )
        if to != LOCAL and not report.stopped:
            report.journal = self._journal.ship(tier)
        progress.done()
        return report

    def ship(self, to: str) -> int:
        """Copy to a tier what it lacks of the journal; returns how many objects.  Raises as `copy` does."""
        return self._journal.ship(self._tiers.writable(to))

    def _named(self, due: Sequence[ObjectRecord], to: str) -> list[ObjectRecord]:
        """What header packs name that is neither on the tier nor due: they are of no use without it."""
        named = {
            self._catalog.placed(key)
            for record in due
            if is_header_pack(record.key)
            for key in self._catalog.references(record.key)
        }
        found = map(self._catalog.find_held, sorted(named - {record.key for record in due}))
        return [record for record in found if record is not None and to not in record.tiers]

    def _whole(self, headers: Sequence[ObjectRecord], to: str) -> list[ObjectRecord]:
        """Those header packs that have all they name on the tier."""
        return [
            record
            for record in headers
            if all(to in self._held(key).tiers for key in self._catalog.references(record.key))
        ]

    def evict(
        self,
        tier: str,
        objects: Sequence[ObjectRecord],
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> TieringReport:
        """Remove copies of which enough others are left; others stay, as pinned ones do: the report says so.

        Raises as `copy` does.
        """
        self._tiers.writable(tier)
        report = TieringReport()
        due = [record for record in objects if tier in record.tiers]
        report.already = len(objects) - len(due)
        if tier == LOCAL:
            pinned = Pins(self._catalog, self._journal).objects()
            report.kept += [(one.key, f"{one.key} is pinned") for one in due if one.key in pinned]
            due = [record for record in due if record.key not in pinned]
        progress.start(sum(record.size for record in due), f"evicting from {tier}")
        run = _Run(report, SharedProgress(progress), stop or threading.Event(), 4)
        # Header packs first: what they name may be read without them by others, never the other way round.
        run.each(
            list(reversed(due)), lambda record: self._copies.evict(record.key, tier, self._minimum_copies)
        )
        progress.done()
        return report

    def warm(
        self, objects: Sequence[ObjectRecord], progress: Progress, stop: threading.Event | None = None
    ) -> TieringReport:
        """Bring objects to the local tier; returns when all are there that are not cold.

        For those a restore is begun, if none is under way; `wait_for_cold` brings them later.  Raises as
        `copy` does.
        """
        report = self.copy(LOCAL, objects, progress, stop)
        with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="restore") as pool:
            problems = list(pool.map(self._restore, report.cold))
        asked = list(zip(report.cold, problems, strict=True))
        report.failed += [(record.key, problem) for record, problem in asked if problem is not None]
        report.cold = [record for record, problem in asked if problem is None]
        # What was asked for is not to leave again before anybody has read it.
        self._note_used(objects)
        return report

    def _restore(self, record: ObjectRecord) -> str | None:
        """Begin a restore, unless one is under way; what prevents it."""
        places = self._places(record)
        try:
            for name, key in places:
                found = self._tiers[name].stat(key)
                if not found.cold or found.restoring:
                    return None
            name, key = places[0]
            self._tiers[name].restore(key)
        except DicomfsError as problem:
            return str(problem)
        return None

    def wait_for_cold(
        self, report: TieringReport, progress: Progress, stop: threading.Event, poll_seconds: float
    ) -> None:
        """Bring what `warm` found cold to the local tier as it is restored; adds to its report."""
        while report.cold and not stop.wait(poll_seconds):
            # Only some at a time: tiers count requests, and take hours.
            looked_at, others = report.cold[:_LOOKED_AT], report.cold[_LOOKED_AT:]
            thawed = [record for record in looked_at if self._is_thawed(record)]
            report.cold = others + [record for record in looked_at if record not in thawed]
            if thawed:
                report.add(self.warm(thawed, progress, stop))
        report.stopped |= stop.is_set()

    def _is_thawed(self, record: ObjectRecord) -> bool:
        for name, key in self._places(record):
            with contextlib.suppress(TierError):
                if not self._tiers[name].stat(key).cold:
                    return True
        return False

    def _places(self, record: ObjectRecord) -> list[tuple[str, ObjectKey]]:
        """The tiers but the local one that hold an object or a twin of it, nearest first, and which."""
        family = self._catalog.family(record.key)
        found = [] if family is None else [(name, family.on(name)) for name in self._tiers.remote]
        return [(name, held.key) for name, held in found if held is not None]

    def _note_used(self, objects: Sequence[ObjectRecord]) -> None:
        now_ns = time.time_ns()
        for first in range(0, len(objects), _NOTED_AT_ONCE):
            with self._catalog.write() as writer:
                writer.note_used({one.key: now_ns for one in objects[first : first + _NOTED_AT_ONCE]})

    def status(self) -> dict[str, dict[str, int]]:
        """Objects and bytes of each tier, as the catalog knows them."""
        found = {name: {"objects": 0, "bytes": 0} for name in self._tiers.names}
        for record in self._catalog.objects():
            for name in record.tiers:
                counted = found.setdefault(name, {"objects": 0, "bytes": 0})
                counted["objects"] += 1
                counted["bytes"] += record.size
        return found


class _Run:
    """Moves objects side by side and counts."""

    def __init__(
        self, report: TieringReport, progress: SharedProgress, stop: threading.Event, workers: int
    ) -> None:
        self._report, self._progress, self._stop, self._workers = report, progress, stop, workers
        self._counting = threading.Lock()

    def each(self, records: Sequence[ObjectRecord], move: Callable[[ObjectRecord], bool]) -> None:
        """Move each record; a full disk ends the run, any other failure only that object's."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="tiering") as pool:
            for outcome in pool.map(lambda record: self._one(record, move), records):
                if outcome is not None:
                    self._stop.set()
                    raise outcome

    def _one(self, record: ObjectRecord, move: Callable[[ObjectRecord], bool]) -> DicomfsError | None:
        if self._stop.is_set():
            self._report.stopped = True
            return None
        try:
            moved = move(record)
        except Stopped:
            self._report.stopped = True
        except (TierFull, CatalogError, UsageError) as problem:
            return problem
        except ObjectCold:
            with self._counting:
                self._report.cold.append(record)
        except LastCopy as problem:
            with self._counting:
                self._report.kept.append((record.key, str(problem)))
        except DicomfsError as problem:
            with self._counting:
                self._report.failed.append((record.key, str(problem)))
        else:
            with self._counting:
                self._report.objects += moved
                self._report.bytes += record.size if moved else 0
                self._report.already += not moved
            self._progress.advance(record.size)
        return None
