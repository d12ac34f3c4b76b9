"""Applying the rules of an archive: copies first, then evictions, then the journal; and saying why.

Owns the order, how full tiers are, and when a mount may move.  What belongs where is `dicomfs.lifecycle`, the
steps of a copy `dicomfs.copies`.  A tier that cannot be had is reported and passed over until the next run.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dicomfs.config import Settings
from dicomfs.errors import CatalogError, DicomfsError, UsageError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.lifecycle import (
    Decision,
    Facts,
    Fill,
    Plan,
    Policy,
    Verdict,
    plan,
    plan_copies,
    plan_evictions,
    verdicts,
)
from dicomfs.lifecycle_settings import Watermark, amount, parse_window
from dicomfs.model import ObjectKey
from dicomfs.object_facts import gather
from dicomfs.progress import Progress
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiering import Tiering, TieringReport

_LOOK_SECONDS = 60.0
"""How often a mount looks whether the local tier is above its high watermark."""
_ROOM_SECONDS = 10.0
"""How long such a look holds for promotion: counting what is stored takes a scan."""


@dataclass(slots=True)
class ApplyReport:
    """What a run did, by tier."""

    copied: dict[str, TieringReport] = field(default_factory=dict)
    evicted: dict[str, TieringReport] = field(default_factory=dict)
    shipped: dict[str, int] = field(default_factory=dict)
    """Journal objects that tiers lacked."""
    above: dict[str, int] = field(default_factory=dict)
    """Tiers above their low watermark from which nothing else may go, and by how many bytes."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Tiers that could not be had: (tier, reason)."""
    stopped: bool = False

    @property
    def failed(self) -> bool:
        """Whether some of what was due was not done."""
        runs = (*self.copied.values(), *self.evicted.values())
        return bool(self.problems or any(run.failed for run in runs))


class Lifecycle:
    """The rules of one archive, and what applies them."""

    def __init__(
        self,
        catalog: Catalog,
        tiers: TierSet,
        tiering: Tiering,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog, self._tiers, self._tiering = catalog, tiers, tiering
        self._settings, self._policy, self._clock = settings.lifecycle, Policy.of(settings), clock
        self._next_run = self._next_look = -math.inf
        self._room: tuple[float, int | None] = -math.inf, None

    @property
    def has_work(self) -> bool:
        """Whether a mount has to look after anything: rules, watermarks, or a journal to ship."""
        return self._policy.moves_anything or bool(self._tiers.remote)

    def plan(self) -> tuple[Plan, list[tuple[str, str]]]:
        """What `apply` would do now, and tiers of which nothing is known: (tier, reason)."""
        objects, problems = gather(self._catalog), list[tuple[str, str]]()
        fills = self._fills(objects, problems)
        return plan(objects, self._policy, time.time_ns(), fills), problems

    def verdicts(self, keys: Iterable[ObjectKey]) -> list[tuple[Facts, list[Verdict]]]:
        """What the rules say of these objects, those first that no tier is known to have."""
        wanted, now_ns = set(keys), time.time_ns()
        known = [facts for facts in gather(self._catalog) if facts.key in wanted]
        lost = sorted(wanted - {facts.key for facts in known})
        return [
            (facts, verdicts(facts, self._policy, now_ns))
            for facts in (*(Facts(key, 0, {}, ()) for key in lost), *known)
        ]

    def apply(
        self, progress: Progress, stop: threading.Event | None = None, *, copies: bool = True
    ) -> ApplyReport:
        """Do what is due; without ``copies``, only relieve tiers above their high watermark.

        Raises:
            CatalogError: the catalog cannot be written.
        """
        report, stop = ApplyReport(), stop or threading.Event()
        if copies:
            self._copy(report, progress, stop)
            self._ship(report, stop)
        if not stop.is_set():
            self._evict(report, progress, stop, only_above=not copies)
        report.stopped = stop.is_set()
        return report

    # for a mount

    def is_due(self) -> bool:
        """Whether a mount should have the rules applied now: now and then, and when the disk fills up."""
        now = self._clock()
        if now >= self._next_run and self.has_work:
            self._next_run = now + 60 * self._settings.interval_minutes
        elif now < self._next_look or not self.is_full():
            return False
        self._next_look = now + _LOOK_SECONDS
        return True

    def may_move_seconds(self, now: datetime | None = None) -> float:
        """How long a mount may move objects from now on, by the schedule of local times; 0: not now."""
        left = until_end_of_window(self._settings.schedule, now or datetime.now())
        return 0.0 if left is None else left.total_seconds()

    def is_full(self) -> bool:
        """Whether the local tier is above its high watermark."""
        room = self._local_room()
        return room is not None and room < 0

    def take_room(self, size: int) -> bool:
        """Whether an object that is promoted stays below the high watermark; it is counted then."""
        looked, room = self._room
        if self._clock() - looked > _ROOM_SECONDS:
            looked, room = self._clock(), self._local_room()
        fits = room is None or size <= room
        self._room = looked, room - size if room is not None and fits else room
        return fits

    def _local_room(self) -> int | None:
        """Bytes until the high watermark of the local tier, negative above it; None without one."""
        if self._policy.tiers[LOCAL].high_watermark is None:
            return None
        stored = sum(record.size for record in self._catalog.objects() if LOCAL in record.tiers)
        fill = self._fill(LOCAL, stored)
        return fill.high - fill.used

    # steps

    def _copy(self, report: ApplyReport, progress: Progress, stop: threading.Event) -> None:
        objects = gather(self._catalog)
        due = plan_copies(objects, self._policy, time.time_ns(), self._fills(objects, report.problems))
        for tier in self._policy.tiers:
            records = self._records(due, tier)
            if records and not stop.is_set():
                with _tolerated(tier, report):
                    report.copied[tier] = self._bring(tier, records, progress, stop)

    def _bring(
        self, tier: str, records: Sequence[ObjectRecord], progress: Progress, stop: threading.Event
    ) -> TieringReport:
        if tier == LOCAL:
            return self._tiering.warm(records, progress, stop)
        return self._tiering.copy(tier, records, progress, stop)

    def _ship(self, report: ApplyReport, stop: threading.Event) -> None:
        """Ship the journal to tiers that hold objects: with them, they can be recovered from."""
        holding = {tier for record in self._catalog.objects() for tier in record.tiers}
        for tier in self._tiers.remote:
            if tier in holding and not stop.is_set():
                with _tolerated(tier, report):
                    report.shipped[tier] = self._tiering.ship(tier)

    def _evict(
        self, report: ApplyReport, progress: Progress, stop: threading.Event, *, only_above: bool
    ) -> None:
        objects, now_ns = gather(self._catalog), time.time_ns()
        unknown: list[tuple[str, str]] = []
        fills = self._fills(objects, unknown)
        found = plan_evictions(objects, self._policy, now_ns, fills)
        report.above = found.above
        report.problems += [problem for problem in unknown if problem not in report.problems]
        for tier in self._policy.tiers:
            if only_above and (tier not in fills or fills[tier].used <= fills[tier].high):
                continue
            records = self._records(found.evictions, tier)
            if records and not stop.is_set():
                with _tolerated(tier, report):
                    report.evicted[tier] = self._tiering.evict(tier, records, progress, stop)

    def _records(self, decisions: Iterable[Decision], tier: str) -> list[ObjectRecord]:
        """The objects to be moved, header packs last; those that are gone meanwhile are left out."""
        keys = {one.key for one in decisions if one.tier == tier}
        found = [self._catalog.find_held(key) for key in keys]
        return self._tiering.ordered([record for record in found if record is not None])

    # how full tiers are

    def _fills(self, objects: Sequence[Facts], problems: list[tuple[str, str]]) -> dict[str, Fill]:
        found = {}
        for tier, keep in self._policy.tiers.items():
            if keep.high_watermark is None:
                continue
            stored = sum(facts.size_on(tier) for facts in objects if tier in facts.tiers)
            try:
                found[tier] = self._fill(tier, stored)
            except DicomfsError as problem:
                problems.append((tier, str(problem)))
        return found

    def _fill(self, tier: str, stored: int) -> Fill:
        keep = self._policy.tiers[tier]
        high = keep.high_watermark
        assert high is not None
        low = high if keep.low_watermark is None else keep.low_watermark
        if not isinstance(high, str):
            return Fill(stored, int(amount(high)), int(amount(low)))
        usage = self._tiers[tier].usage()
        if usage.total is None or usage.free is None:
            raise UsageError(
                f"tiers.{tier}.high_watermark: the tier does not say how large it is: give bytes, not percent"
            )
        return Fill(usage.total - usage.free, _share(high, usage.total), _share(low, usage.total))


@contextlib.contextmanager
def _tolerated(tier: str, report: ApplyReport) -> Iterator[None]:
    """Note what is wrong with a tier and go on with the others; raises CatalogError."""
    try:
        yield
    except CatalogError:
        raise
    except DicomfsError as problem:
        if (tier, str(problem)) not in report.problems:
            report.problems.append((tier, str(problem)))


def _share(watermark: Watermark, total: int) -> int:
    return int(amount(watermark) * total / 100)


def until_end_of_window(schedule: Sequence[str], now: datetime) -> timedelta | None:
    """How long objects may be moved from now on, by a schedule of local times; None: not now.

    Without any schedule, and where windows follow each other without a gap, a day.
    """
    if not schedule:
        return timedelta(days=1)
    at = now
    for _ in range(len(schedule) + 1):
        ends = [end for window in schedule if (end := _end_of(window, at)) is not None]
        if not ends or max(ends) - now >= timedelta(days=1):
            at = max([at, *ends])
            break
        at = max(ends)
    return None if at == now else min(at - now, timedelta(days=1))


def _end_of(window: str, now: datetime) -> datetime | None:
    """When a window that is open now closes."""
    found = parse_window(window)
    if found is None:
        return None
    begin, end = (now.replace(hour=one.hour, minute=one.minute, second=0, microsecond=0) for one in found)
    if end <= begin:
        if now < end:
            begin -= timedelta(days=1)
        else:
            end += timedelta(days=1)
    return end if begin <= now < end else None
