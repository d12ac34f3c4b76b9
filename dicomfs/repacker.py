"""Repacking: packs of frames moved to another profile, one at a time, where it gains.

trial → encode → compare → place → commit → delete.  A pack is never changed: a new one takes its place
(docs/format.md, stand-ins), with the same frames under the same numbers, so that tables, names, numbers and
whatever refers to the frames stay as they are.  Between two packs nothing is held: `pack` and imports get
their turn, and stopping costs one pack at most.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.codec.base import Profile
from dicomfs.copies import Copies
from dicomfs.errors import CatalogFull, DicomfsError, NotFoundError, TierFull
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.locks import locked
from dicomfs.model import FRAME_KINDS, ObjectKey
from dicomfs.packing.commit import MOVED, end_intents
from dicomfs.packing.repack import Outcome, PackMove, Repacked
from dicomfs.packing.run import PackRun, Stopped
from dicomfs.packing.seal import Staging, clear_staging
from dicomfs.packs import PackSource
from dicomfs.paths import ArchivePaths
from dicomfs.progress import Progress
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.02
"""Between two packs, so that whoever waits for the lock gets it: it is not handed out in order."""


@dataclass(slots=True)
class RepackReport:
    """What a run of repack did."""

    moved: int = 0
    bytes_before: int = 0
    """Of the packs that were moved."""
    bytes_after: int = 0
    kept: int = 0
    """Packs that stayed as they are, because moving them gains nothing."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Pack, reason; it stays as it is."""
    stopped: bool = False


class Repacker:
    """Moves packs of one archive to another profile."""

    def __init__(
        self,
        paths: ArchivePaths,
        archive_id: bytes,
        catalog: Catalog,
        tier: Tier,
        source: PackSource,
        copies: Copies,
        packing: Mapping[str, str],
    ) -> None:
        """``packing`` gives the profile of each tier that has one: its copies are left to it."""
        self._paths, self._archive_id = paths, archive_id
        self._catalog, self._tier, self._source, self._copies = catalog, tier, source, copies
        self._packing = packing

    def repack(
        self,
        profile: Profile,
        chosen: Collection[ObjectKey] | None,
        progress: Progress,
        tell: Callable[[Outcome], None],
        stop: threading.Event | None = None,
    ) -> RepackReport:
        """Move packs to a profile; ``chosen`` names them as instance tables do, None means all.

        ``tell`` hears of every pack that was looked at.  Packs that have the profile, or were found to gain
        nothing from it, are passed over, so that a run that was stopped is taken up where it ended.

        Raises:
            TierFull, CatalogFull: there is no space; what was committed before stays committed.
        """
        report, stop = RepackReport(), stop or threading.Event()
        workers = os.cpu_count() or 1
        with locked(self._paths.pack_lock):
            clear_staging(self._paths.staging)
            end_intents(self._catalog, self._tier, self._moved())
        keys = self._due(profile, chosen)
        progress.start(sum(size for _, size in keys), "repacking")
        with ThreadPoolExecutor(workers, thread_name_prefix="repack") as pool:
            run = PackRun(pool, workers, profile, 0, progress, stop)
            for key, size in keys:
                if stop.is_set():
                    break
                with locked(self._paths.pack_lock):
                    self._one(key, run, report, tell)
                progress.advance(size)
                time.sleep(_TURN_SECONDS)
        progress.done()
        report.stopped = stop.is_set()
        return report

    def _moved(self) -> list[ObjectKey]:
        """What a repack that died has moved and not deleted."""
        return [intent.key for intent in self._catalog.intents() if intent.owner == MOVED]

    def _due(self, profile: Profile, chosen: Collection[ObjectKey] | None) -> list[tuple[ObjectKey, int]]:
        """Packs to look at, and their sizes."""
        wanted = None if chosen is None else {self._catalog.placed(key) for key in chosen}
        return [
            (record.key, record.size)
            for record in self._catalog.objects()
            if any(record.key.startswith(f"{kind.prefix}/") for kind in FRAME_KINDS)
            and record.twin_of is None
            and (wanted is None or record.key in wanted)
            and profile.value not in (record.profile, record.kept)
        ]

    def _one(
        self,
        key: ObjectKey,
        run: PackRun,
        report: RepackReport,
        tell: Callable[[Outcome], None],
    ) -> None:
        try:
            record = self._catalog.object(key)
        except NotFoundError:
            return  # moved by another run meanwhile
        try:
            outcome = self._moved_or_kept(record, run)
        except Stopped:
            return
        except (TierFull, CatalogFull):
            raise
        except DicomfsError as problem:
            logger.warning("pack not moved", extra={"object": key, "reason": str(problem)})
            report.failed.append((key, str(problem)))
            return
        if outcome.moved:
            report.moved += 1
            report.bytes_before += outcome.before
            report.bytes_after += outcome.after
        else:
            report.kept += 1
        tell(outcome)

    def _moved_or_kept(self, record: ObjectRecord, run: PackRun) -> Outcome:
        staging = Staging(self._paths.staging, self._archive_id, run.profile.value)
        try:
            found = PackMove(record, self._catalog, self._source, self._tier, run).make(staging)
            if isinstance(found, Repacked):
                self._place_and_commit(record, found, run.profile)
                return found.outcome
            with self._catalog.write() as writer:
                writer.note_profile(record.key, found.profile, run.profile.value)
            return found
        finally:
            staging.clear()

    def _place_and_commit(self, record: ObjectRecord, new: Repacked, profile: Profile) -> None:
        """Place the new pack, commit, delete the old one: the steps whose order is the crash contract."""
        key = new.staged.key
        with locked(self._paths.placing_lock), self._catalog.write() as writer:
            writer.add_intent(key, "repack")
        size = new.staged.summary.size
        self._tier.put(key, new.staged.path, new.staged.summary.sha256)
        # Where the old one lies, the new one has to lie before the old one may go; on tiers that want another
        # profile it stays.
        kept = {name for name in record.tiers if self._packing.get(name, profile.value) != profile.value}
        kept -= {self._tier.name}
        others = sorted(record.tiers.keys() - {self._tier.name} - kept)
        for name in others:
            self._copies.put_proven(key, size, new.staged.path, name)
        with self._catalog.write() as writer:
            for name in (self._tier.name, *others):
                writer.add_object(key, size, name, time.time_ns(), profile.value)
            writer.remove_intent(key)
            writer.succeed(record.key, key, kept=kept)
            writer.add_intent(record.key, MOVED)
        end_intents(self._catalog, self._tier, [record.key])
