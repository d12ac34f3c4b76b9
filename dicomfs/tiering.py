"""Moving an archive's objects between its tiers on request: copy, evict, warm.

Owns what is moved in which order and what the report says; the steps of a single copy and their order are
`dicomfs.copies`.  Packs go before the header packs that name them: a header pack on a tier counts as
committed for `recover`, so it must never be there without them.  The journal goes with every copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.copies import Copies, LastCopy
from dicomfs.errors import CatalogError, DicomfsError, TierFull, UsageError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import ObjectKey, PackKind
from dicomfs.progress import Progress, SharedProgress
from dicomfs.tier_set import LOCAL, TierSet


@dataclass(slots=True)
class TieringReport:
    """What a run moved."""

    objects: int = 0
    bytes: int = 0
    already: int = 0
    """Objects that were there, or gone, before."""
    journal: int = 0
    """Journal objects that were shipped."""
    kept: list[tuple[str, str]] = field(default_factory=list)
    """Copies that were not evicted because no other is proven: (object, reason)."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(object, reason)."""
    stopped: bool = False


class Tiering:
    """Copies, evicts and warms objects of one archive."""

    def __init__(self, catalog: Catalog, tiers: TierSet, copies: Copies, journal: Journal) -> None:
        self._catalog, self._tiers, self._copies, self._journal = catalog, tiers, copies, journal

    def objects(self, series: Iterable[int] | None = None) -> list[ObjectRecord]:
        """Every object, or all that instances of these series need, header packs last."""
        if series is None:
            found = list(self._catalog.objects())
        else:
            headers = {part.header_key for number in series for part in self._catalog.parts(number)}
            needed = {
                self._catalog.placed(key) for header in headers for key in self._catalog.references(header)
            }
            found = [self._catalog.object(key) for key in sorted(headers | needed)]
        return sorted(found, key=lambda record: (_is_header(record.key), record.key))

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
        headers = [record for record in due if _is_header(record.key)]
        others = [record for record in due if not _is_header(record.key)]
        progress.start(sum(record.size for record in due), f"copying to {to}")
        run = _Run(report, SharedProgress(progress), stop or threading.Event(), tier.traits.connections)
        run.each(others, lambda record: self._copies.place(record.key, to))
        complete = not report.failed and not report.stopped
        # A header pack without what it names is of no use to who recovers.
        run.each(
            headers if complete else self._whole(headers, to),
            lambda record: self._copies.place(record.key, to),
        )
        if to != LOCAL and not report.stopped:
            report.journal = self._journal.ship(tier)
        progress.done()
        return report

    def _whole(self, headers: Sequence[ObjectRecord], to: str) -> list[ObjectRecord]:
        """Those header packs that have all they name on the tier."""
        return [
            record
            for record in headers
            if all(
                to in self._catalog.object(self._catalog.placed(key)).tiers
                for key in self._catalog.references(record.key)
            )
        ]

    def evict(
        self,
        tier: str,
        objects: Sequence[ObjectRecord],
        progress: Progress,
        stop: threading.Event | None = None,
        least: int = 1,
    ) -> TieringReport:
        """Remove copies that ``least`` other tiers have; others stay, and the report says so.

        Raises as `copy` does.
        """
        self._tiers.writable(tier)
        report = TieringReport()
        due = [record for record in objects if tier in record.tiers]
        report.already = len(objects) - len(due)
        progress.start(sum(record.size for record in due), f"evicting from {tier}")
        run = _Run(report, SharedProgress(progress), stop or threading.Event(), 4)
        # Header packs first: what they name may be read without them by others, never the other way round.
        run.each(list(reversed(due)), lambda record: self._copies.evict(record.key, tier, least))
        progress.done()
        return report

    def warm(
        self, objects: Sequence[ObjectRecord], progress: Progress, stop: threading.Event | None = None
    ) -> TieringReport:
        """Bring objects to the local tier; returns when they are there.  Raises as `copy` does."""
        return self.copy(LOCAL, objects, progress, stop)

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
        except (TierFull, CatalogError, UsageError) as problem:
            return problem
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


def _is_header(key: ObjectKey) -> bool:
    return key.startswith(PackKind.HEADER.prefix + "/")
