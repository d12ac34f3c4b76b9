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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dicomfs.codec.base import Profile
from dicomfs.copies import Copies
from dicomfs.errors import CodecError, MismatchError, NotFoundError, TierError, TierFull
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import Family, ObjectRecord
from dicomfs.locks import locked
from dicomfs.model import FRAME_KINDS, ObjectKey
from dicomfs.packing.repack import PackMove, Repacked
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import STAGING, Staging, clear_staging
from dicomfs.packs import PackSource
from dicomfs.paths import ArchivePaths
from dicomfs.progress import NullProgress
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)


Made = tuple[ObjectRecord, Path]
"""A twin that is not recorded yet, and a file that holds it and does not change."""


class Coder(Protocol):
    """Codes packs anew."""

    def made(
        self, record: ObjectRecord, profile: Profile, stop: threading.Event, held: contextlib.ExitStack
    ) -> Made | None:
        """A twin of a pack in a profile, which was compared; None, and noted, where it gains nothing.

        ``held`` has to be closed when its file is needed no more.

        Raises:
            CodecError, MismatchError: it cannot be had exactly.
            TierFull: of ``STAGING``: there is no room to make it.
            TierError, FormatError: the pack, or a file that has frames in it, cannot be read.
            Stopped: somebody asked to stop.
        """
        ...


class Recoding:
    """Places objects of one archive on its tiers.  Thread-safe."""

    def __init__(self, catalog: Catalog, copies: Copies, coder: Coder, packing: Mapping[str, str]) -> None:
        """``packing`` gives the profile of each tier that has one."""
        self._catalog, self._copies, self._coder, self._packing = catalog, copies, coder, packing

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
        *others, last = self._in_turn(family, profile)
        for record in others:
            try:
                return self._place(record, to, profile, stop)
            except TierError as problem:
                if problem.tier == to:
                    raise
                facts = {"object": record.key, "tier": problem.tier, "reason": str(problem)}
                logger.warning("another twin is copied", extra=facts)
        return self._place(last, to, profile, stop)

    def _place(self, record: ObjectRecord, to: str, profile: str, stop: threading.Event) -> bool:
        if profile and not record.suits(profile):
            with contextlib.ExitStack() as held:
                made = self._coded_anew(record, Profile(profile), stop, held)
                if made is not None:
                    twin, path = made
                    self._copies.place_file(twin, path, to)
                    logger.info("coded anew", extra={"object": twin.key, "of": record.key, "tier": to})
                    return True
        return self._copies.place(record.key, to)

    def _in_turn(self, family: Family, profile: str) -> list[ObjectRecord]:
        """What may be copied: those in the profile that is wanted before any other, then the nearest."""
        names = self._copies.tier_names
        return sorted(
            family.members,
            key=lambda one: (
                bool(profile) and one.profile != profile,
                bool(profile) and not one.suits(profile),
                min((names.index(name) for name in one.tiers if name in names), default=len(names)),
            ),
        )

    def _coded_anew(
        self, record: ObjectRecord, profile: Profile, stop: threading.Event, held: contextlib.ExitStack
    ) -> Made | None:
        try:
            return self._coder.made(record, profile, stop, held)
        except (CodecError, MismatchError, TierFull) as problem:
            if isinstance(problem, TierFull) and problem.tier != STAGING:
                raise
            logger.warning("copied as it is", extra={"object": record.key, "reason": str(problem)})
            return None


class PackCoder:
    """Codes packs anew by what repacks them.  Thread-safe; threads and processes take turns."""

    def __init__(
        self, paths: ArchivePaths, archive_id: bytes, catalog: Catalog, tier: Tier, source: PackSource
    ) -> None:
        """``tier`` and ``source`` read what is placed."""
        self._paths, self._archive_id = paths, archive_id
        self._catalog, self._tier, self._source = catalog, tier, source

    def made(
        self, record: ObjectRecord, profile: Profile, stop: threading.Event, held: contextlib.ExitStack
    ) -> Made | None:
        """See Coder.made."""
        workers = os.cpu_count() or 1
        with locked(self._paths.recoding_lock):
            _prepare(self._paths.recoding)
            staging = Staging(self._paths.recoding, self._archive_id, profile.value)
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
        key, size = found.staged.key, found.staged.summary.size
        twin = ObjectRecord(key, size, {}, profile.value, twin_of=record.key)
        return twin, Path(f"/proc/self/fd/{file.fileno()}")


def _holds_frames(key: ObjectKey) -> bool:
    return any(key.startswith(f"{kind.prefix}/") for kind in FRAME_KINDS)


def _prepare(folder: Path) -> None:
    """Make the folder, or empty it of what a crash left; raises TierFull where it cannot be used."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        clear_staging(folder)
    except OSError as problem:
        raise TierFull(STAGING, str(folder), f"cannot be used: {problem.strerror}") from problem
