"""Putting packs on tiers in the profile that each tier holds: copied as they are, or coded anew on the way.

Owns when a pack is coded anew for a tier, and the order that keeps it safe: code, compare every file that has
frames in it, put, read back, record as a twin.  Nothing is noted before a twin is recorded: what a crash
leaves on the tier is not named by anybody, and gc finds it.  Where coding it anew gains nothing, cannot be
trusted or has no room, the pack is copied as it is: a copy is worth more than a small one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicomfs.codec.base import Profile
from dicomfs.copies import Copies
from dicomfs.errors import CodecError, MismatchError, NotFoundError, TierFull
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import Family, ObjectRecord
from dicomfs.locks import locked
from dicomfs.model import FRAME_KINDS, ObjectKey
from dicomfs.packing.repack import PackMove, Repacked
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import Staging, clear_staging
from dicomfs.packs import PackSource
from dicomfs.paths import ArchivePaths
from dicomfs.progress import NullProgress
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)


class Recoding:
    """Places objects of one archive on its tiers.  Thread-safe; processes take turns in coding."""

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
        """``tier`` and ``source`` read what is placed; ``packing`` is the profile of tiers that have one."""
        self._paths, self._archive_id = paths, archive_id
        self._catalog, self._tier, self._source, self._copies = catalog, tier, source, copies
        self._packing = packing

    def place(self, key: ObjectKey, to: str, stop: threading.Event) -> bool:
        """Have a tier hold a proven copy of an object, or of a pack a twin; False where it does already.

        Raises:
            TierError: the tier failed, or no intact copy could be had.
            NotFoundError: the catalog knows no such object (any more).
            Stopped: somebody asked to stop.
        """
        family = self._catalog.family(key)
        if family is None:
            raise NotFoundError("object", key)
        if to in family.tiers:
            return False
        profile = self._packing.get(to, "") if _holds_frames(key) else ""
        chosen = self._nearest(family, profile)
        if profile and not chosen.suits(profile):
            with self._coded_anew(chosen, profile, stop) as made:
                if made is not None:
                    twin, path = made
                    self._copies.place_file(twin, path, to)
                    logger.info("coded anew", extra={"object": twin.key, "of": chosen.key, "tier": to})
                    return True
        return self._copies.place(chosen.key, to)

    def _nearest(self, family: Family, profile: str) -> ObjectRecord:
        """The member to copy: one in the profile that is wanted before any other, then the nearest."""
        names = self._copies.tier_names
        members = [one for one in family.members if one.tiers] or list(family.members)
        return min(
            members,
            key=lambda one: (
                bool(profile) and one.profile != profile,
                bool(profile) and not one.suits(profile),
                min((names.index(name) for name in one.tiers if name in names), default=len(names)),
            ),
        )

    @contextlib.contextmanager
    def _coded_anew(
        self, record: ObjectRecord, profile: str, stop: threading.Event
    ) -> Iterator[tuple[ObjectRecord, Path] | None]:
        """A twin that was compared, in a file that goes with the process; None where there is to be none."""
        with contextlib.ExitStack() as held:
            made = None
            try:
                made = self._made(record, Profile(profile), stop, held)
            except (CodecError, MismatchError, TierFull) as problem:
                if isinstance(problem, TierFull) and problem.tier != "staging":
                    raise
                logger.warning("copied as it is", extra={"object": record.key, "reason": str(problem)})
            yield made

    def _made(
        self, record: ObjectRecord, profile: Profile, stop: threading.Event, held: contextlib.ExitStack
    ) -> tuple[ObjectRecord, Path] | None:
        folder, workers = self._paths.recoding, os.cpu_count() or 1
        with locked(self._paths.recoding_lock):
            _prepare(folder)
            staging = Staging(folder, self._archive_id, profile.value)
            try:
                with ThreadPoolExecutor(workers, thread_name_prefix="recode") as pool:
                    run = PackRun(pool, workers, profile, 0, NullProgress(), stop)
                    found = PackMove(record, self._catalog, self._source, self._tier, run).make(staging)
                if not isinstance(found, Repacked):
                    with self._catalog.write() as writer:
                        writer.note_profile(record.key, found.profile, profile.value)
                    return None
                # Opened before it loses its name: whatever ends this process, nothing is left.
                file = held.enter_context(found.staged.path.open("rb"))
            finally:
                staging.clear()
        twin = ObjectRecord(
            found.staged.key, found.staged.summary.size, {}, profile.value, twin_of=record.key
        )
        return twin, Path(f"/proc/self/fd/{file.fileno()}")


def _holds_frames(key: ObjectKey) -> bool:
    return any(key.startswith(f"{kind.prefix}/") for kind in FRAME_KINDS)


def _prepare(folder: Path) -> None:
    """Make the folder, or empty it of what a crash left; raises TierFull where it cannot be used."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        clear_staging(folder)
    except OSError as problem:
        raise TierFull("staging", str(folder), f"cannot be used: {problem.strerror}") from problem
