"""Scrubbing and healing: copies are read again before anybody needs them, and bad ones replaced.

Every copy is proven by its name, those first that were proven longest ago; a budget ends a run, the next one
goes on there.  A tier that cannot be asked is told as that: it says nothing of its copies.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from dicomfs.copies import Copies, is_intact
from dicomfs.errors import (
    CatalogError,
    DicomfsError,
    FormatError,
    TierError,
    TransientTierError,
    UsageError,
)
from dicomfs.format.keys import JOURNAL_PREFIX, SNAPSHOT_PREFIX
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import ObjectKey
from dicomfs.progress import Progress
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)

_NOTED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends; None: when all is read."""

    bytes: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class ScrubReport:
    """What was read, and what was wrong with it."""

    copies: int = 0
    bytes: int = 0
    left: int = 0
    """Copies that the budget did not reach."""
    healed: list[tuple[str, ObjectKey]] = field(default_factory=list)
    """(tier, object) of copies that were bad or missing and are good now; of the journal, too."""
    damaged: list[tuple[str, ObjectKey, str]] = field(default_factory=list)
    """(tier, object, why it was not healed)."""
    unreachable: dict[str, str] = field(default_factory=dict)
    """Tiers that could not be asked, and why."""
    stopped: bool = False


class Scrubber:
    """Reads the copies of one archive again."""

    def __init__(
        self,
        catalog: Catalog,
        tiers: TierSet,
        copies: Copies,
        archive_id: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog, self._tiers, self._copies = catalog, tiers, copies
        self._archive_id, self._clock = archive_id, clock

    def scrub(
        self,
        budget: Budget,
        progress: Progress,
        *,
        tier: str | None = None,
        objects: Iterable[ObjectRecord] | None = None,
        heal: bool = True,
        stop: threading.Event | None = None,
    ) -> ScrubReport:
        """Prove copies, of one tier or of some objects only where these are given, within a budget.

        Raises:
            UsageError: there is no such tier.
            CatalogError: the index failed.
        """
        if tier is not None and tier not in self._tiers.names:
            self._tiers.opened(tier)
        report, stop = ScrubReport(), stop or threading.Event()
        meant = list(self._catalog.objects() if objects is None else objects)
        lost = [record.key for record in meant if not record.tiers]
        report.damaged += [("any", key, "no tier is known to have it") for key in lost]
        due = self._due(meant, tier)
        total = sum(record.size for _, _, record in due)
        progress.start(total if budget.bytes is None else min(total, budget.bytes), "scrubbing")
        began, noted = self._clock(), _Noted(self._catalog)
        try:
            for number, (_, name, record) in enumerate(due):
                spent = budget.bytes is not None and report.bytes >= budget.bytes
                late = budget.seconds is not None and self._clock() - began >= budget.seconds
                report.stopped = stop.is_set()
                if spent or late or report.stopped:
                    report.left = len(due) - number
                    break
                self._one(name, record, report, noted, heal=heal)
                progress.advance(record.size)
        finally:
            noted.flush()
        progress.done()
        return report

    def scrub_journal(self, report: ScrubReport, *, everywhere: bool, heal: bool = True) -> None:
        """Prove the local journal, and that the others have all of it; ``everywhere``: read it there, too.

        What one tier lacks or has damaged is put there from another.
        """
        journals = {name: Journal(tier, self._archive_id) for name, tier in self._reachable(report)}
        there: dict[str, set[ObjectKey]] = {}
        for name, journal in journals.items():
            try:
                there[name] = set(journal.list())
            except TierError as problem:
                report.unreachable[name] = str(problem)
        for key in sorted(set().union(*there.values())):
            good, bad = b"", []
            for name, keys in there.items():
                if key in keys and good and name != LOCAL and not everywhere:
                    continue
                try:
                    document, _ = journals[name].checked(key)
                except TransientTierError as problem:
                    report.unreachable[name] = str(problem)
                except (TierError, FormatError) as problem:
                    bad.append((name, str(problem)))
                else:
                    if good and document != good:
                        report.damaged.append((name, key, "differs from that of another tier"))
                    good = good or document
            for name, reason in bad:
                self._mend(name, key, good, reason, report, heal=heal)

    def scrub_snapshots(self, report: ScrubReport, *, heal: bool = True) -> None:
        """Prove the snapshots on every tier; a bad one is told, and removed: recovery would pass it over."""
        for name, tier in self._reachable(report):
            try:
                bad = [key for key, at in tier.list(SNAPSHOT_PREFIX) if not is_intact(tier, key, at.size)]
            except TierError as problem:
                report.unreachable[name] = str(problem)
                continue
            for key in bad:
                logger.error("bad snapshot", extra={"tier": name, "object": key})
                reason = "damaged"
                if heal:
                    try:
                        self._tiers.destroy(name, [key])
                        reason = "was damaged, and is removed: `dicomfs snapshot` makes another"
                    except DicomfsError as problem:
                        reason = f"damaged, and not removed: {problem}"
                report.damaged.append((name, key, reason))

    # one copy

    def _due(self, objects: Iterable[ObjectRecord], tier: str | None) -> list[tuple[int, str, ObjectRecord]]:
        """Copies, those first that were proven longest ago: (when, tier, object)."""
        # Of a pack that stands for its family, the members are meant.
        families = [(record, self._catalog.family(record.key)) for record in objects]
        records = {
            one.key: one
            for record, family in families
            for one in ((record,) if family is None else family.members)
        }
        found = [
            (verified, name, record)
            for record in records.values()
            for name, verified in record.tiers.items()
            if tier in (None, name)
        ]
        return sorted(found, key=lambda one: (one[0], one[1], one[2].key))

    def _one(
        self, name: str, record: ObjectRecord, report: ScrubReport, noted: _Noted, *, heal: bool
    ) -> None:
        if name in report.unreachable:
            return
        try:
            intact, reason = is_intact(self._tiers[name], record.key, record.size), "damaged or missing"
        except (TransientTierError, UsageError) as problem:
            report.unreachable[name] = str(problem)
            return
        except TierError as problem:
            if not self._answers(name):
                report.unreachable[name] = str(problem)
                return
            intact, reason = False, str(problem)
        report.copies += 1
        report.bytes += record.size
        if intact:
            noted.add(record.key, name)
            return
        now = self._catalog.find_object(record.key)
        if now is None or name not in now.tiers:
            return  # moved or evicted since it was listed
        logger.error("bad copy", extra={"tier": name, "object": record.key, "reason": reason})
        if not heal:
            report.damaged.append((name, record.key, reason))
            return
        self._heal(name, now, report)

    def _heal(self, name: str, record: ObjectRecord, report: ScrubReport) -> None:
        try:
            self._adopt(record)
            self._copies.heal(record.key, name)
        except CatalogError:
            raise
        except DicomfsError as problem:
            report.damaged.append((name, record.key, str(problem)))
        else:
            report.healed.append((name, record.key))

    def _adopt(self, record: ObjectRecord) -> None:
        """Record intact copies that nobody knows of, as an eviction that died leaves them."""
        for name in self._tiers.names:
            if name in record.tiers:
                continue
            try:
                intact = is_intact(self._tiers[name], record.key, record.size)
            except DicomfsError:
                continue  # one that cannot be asked is no help
            if intact:
                with self._catalog.write() as writer:
                    writer.add_object(record.key, record.size, name, time.time_ns())

    def _answers(self, name: str) -> bool:
        """Whether a tier that failed one request does what it is asked otherwise."""
        try:
            next(iter(self._tiers[name].list(JOURNAL_PREFIX)), None)
        except DicomfsError:
            return False
        return True

    def _reachable(self, report: ScrubReport) -> Iterator[tuple[str, Tier]]:
        for name in self._tiers.names:
            try:
                yield name, self._tiers[name]
            except (TierError, UsageError) as problem:
                report.unreachable[name] = str(problem)

    def _mend(
        self, name: str, key: ObjectKey, good: bytes, reason: str, report: ScrubReport, *, heal: bool
    ) -> None:
        """Put a journal object where it is damaged or missing."""
        if not good or not heal:
            report.damaged.append((name, key, reason))
            return
        try:
            tier = self._tiers.writable(name)
            tier.delete(key)
            tier.put(key, good, hashlib.sha256(good).hexdigest())
            if tier.get(key) != good:
                raise TierError(name, key, "other bytes come back than were put")
        except DicomfsError as problem:
            report.damaged.append((name, key, str(problem)))
        else:
            report.healed.append((name, key))


class _Noted:
    """Gathers verifications, so that they share a transaction."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiting: list[tuple[ObjectKey, str, int]] = []

    def add(self, key: ObjectKey, tier: str) -> None:
        """Note that a copy was proven just now."""
        self._waiting.append((key, tier, time.time_ns()))
        if len(self._waiting) >= _NOTED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._waiting:
            with self._catalog.write() as writer:
                for key, tier, verified in self._waiting:
                    writer.note_verified(key, tier, verified)
            self._waiting.clear()
