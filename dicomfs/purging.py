"""Purging: objects that others need are packed again without what was forgotten, then destroyed.

`forget` leaves bytes in packs that hold something of other instances, too, and notes which.  Owns what has to
be packed again so that nobody needs these any more, and that the new packs lie on as many tiers before the
old ones are destroyed.  How parts are packed again is the packer's.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from dicomfs.collecting import Collector
from dicomfs.errors import CatalogError, DicomfsError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import PartInfo
from dicomfs.model import ObjectKey, is_header_pack
from dicomfs.object_facts import objects_of
from dicomfs.packing.together import Together
from dicomfs.progress import NullProgress
from dicomfs.tier_set import LOCAL
from dicomfs.tiering import Tiering

logger = logging.getLogger(__name__)

PackAgain = Callable[[Together], tuple[set[ObjectKey], set[ObjectKey]]]
"""Packs parts again without referring to tainted objects.

Returns the objects left over, condemned on all tiers, and those made of nothing but these parts."""


@dataclass(slots=True)
class PurgeReport:
    """What a run did."""

    parts: int = 0
    """Series parts that were packed again."""
    destroyed: int = 0
    """Objects, each on every tier."""
    left: list[tuple[str, str]] = field(default_factory=list)
    """Objects that still hold something of what was forgotten, and why; the next run tries again."""
    stopped: bool = False


class Purger:
    """Purges one archive."""

    def __init__(
        self, catalog: Catalog, collector: Collector, tiering: Tiering, pack_again: PackAgain
    ) -> None:
        self._catalog, self._collector, self._tiering = catalog, collector, tiering
        self._pack_again = pack_again

    def purge(self, stop: threading.Event | None = None) -> PurgeReport:
        """Pack again what others need of tainted objects, and destroy these.

        Raises:
            CatalogError: the index failed.
        """
        report, stop = PurgeReport(), stop or threading.Event()
        tainted = self._catalog.tainted()
        gone: set[ObjectKey] = set()
        clean: set[ObjectKey] = set()
        for key, parts in sorted(self._affected(tainted).items()):
            if stop.is_set():
                report.stopped = True
                break
            try:
                left_over, made = self._replace(parts, report)
            except CatalogError:
                raise
            except DicomfsError as problem:
                report.left.append((key, f"not packed again: {problem}"))
                continue
            gone |= left_over
            # The same bytes have the same name: what comes out again holds nothing else than what is kept.
            clean |= made
            report.parts += len(parts)
        gone -= clean
        failed = self._collector.destroy(gone)
        report.left += failed
        report.destroyed = len(gone) - len({key for key, _ in failed})
        with self._catalog.write() as writer:
            # What could not be deleted yet is condemned: gc does it.
            writer.end_tainted([key for key in tainted if key in clean or not self._is_needed(key)])
        return report

    def _is_needed(self, key: ObjectKey) -> bool:
        return self._catalog.has_object(self._catalog.placed(key)) and self._catalog.is_used(key)

    def _affected(self, tainted: Collection[ObjectKey]) -> dict[ObjectKey, tuple[PartInfo, ...]]:
        """Parts that need a tainted object, by their header packs."""
        names = self._catalog.read_as(tainted)
        headers = {key for key in names if is_header_pack(key)}
        packs = names - headers
        found: dict[ObjectKey, list[PartInfo]] = defaultdict(list)
        for header in headers.union(self._catalog.referring(packs)):
            for series, number in self._catalog.parts_using(header):
                for part, needed in self._catalog.needs(series).items():
                    if part.part == number and (header in headers or not packs.isdisjoint(needed)):
                        found[header].append(part)
        return {header: tuple(parts) for header, parts in found.items()}

    def _replace(
        self, parts: tuple[PartInfo, ...], report: PurgeReport
    ) -> tuple[set[ObjectKey], set[ObjectKey]]:
        """Pack parts again, and bring the new objects to the tiers that had the old ones."""
        series = {part.series for part in parts}
        before = {key: self._catalog.find_held(key) for key in objects_of(self._catalog, series)}
        study = self._catalog.series(parts[0].series).study
        gone, made = self._pack_again(Together(study, parts))
        tiers = {tier for key in gone if (one := before.get(key)) is not None for tier in one.tiers}
        new = [self._catalog.object(key) for key in objects_of(self._catalog, series) - before.keys()]
        for tier in sorted(tiers - {LOCAL}):
            try:
                copied = self._tiering.copy(tier, self._tiering.ordered(new), NullProgress())
            except DicomfsError as problem:
                report.left.append((parts[0].header_key, f"its successor is not on tier {tier}: {problem}"))
            else:
                report.left += [(key, f"{key} is not on tier {tier}: {why}") for key, why in copied.failed]
        return gone, made
