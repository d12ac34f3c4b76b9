"""Switching encryption on: the plain objects of a tier in the house are replaced by encrypted ones.

Owns the order that loses nothing: put the encrypted object, read it back, compare, then delete the plain
one.  Reading goes on meanwhile (`dicomfs.tiers.switching`).  Stopped anywhere, the next run goes on: what
is plain is found by listing the tier.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.copies import name_digest
from dicomfs.errors import (
    CatalogError,
    DicomfsError,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    TierError,
    TierFull,
    UsageError,
)
from dicomfs.format.keys import JOURNAL_PREFIX, SNAPSHOT_PREFIX
from dicomfs.index.catalog import Catalog
from dicomfs.locks import locked
from dicomfs.model import ObjectKey, PackKind
from dicomfs.ownership import PREFIX as OWNER_PREFIX
from dicomfs.progress import Progress
from dicomfs.tier_set import TierSet
from dicomfs.tiers.base import LEFT_BEHIND_SECONDS, ObjectStat
from dicomfs.tiers.fetching import digest_of, fetch_into, unnamed_file
from dicomfs.tiers.switching import SwitchingTier

logger = logging.getLogger(__name__)

_NAMED_BY_DIGEST = frozenset({SNAPSHOT_PREFIX, *(kind.prefix for kind in PackKind)})
_OURS = _NAMED_BY_DIGEST | {JOURNAL_PREFIX}
Heal = Callable[[ObjectKey, str], None]
"""Replaces a damaged copy on a tier by an intact one of another tier."""


@dataclass(slots=True)
class EncryptReport:
    """What a run did."""

    objects: int = 0
    bytes: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    """What still lies there in plain bytes, and why: (object, reason)."""
    stopped: bool = False


class Encryption:
    """Encrypts tiers of one archive.  Several at a time do no harm."""

    def __init__(self, tiers: TierSet, catalog: Catalog, heal: Heal, lock: Path, folder: Path) -> None:
        """``lock`` is held while a copy is removed; ``folder`` is for temporary files."""
        self._tiers, self._catalog, self._heal = tiers, catalog, heal
        self._lock, self._folder = lock, folder

    def begun(self) -> list[str]:
        """Tiers where encryption was switched on and something plain may be left."""
        found = []
        for name in self._tiers.remote:
            try:
                tier = self._tiers[name]
                if isinstance(tier, SwitchingTier) and tier.is_switched:
                    found.append(name)
            except DicomfsError as problem:
                logger.info("tier not looked at", extra={"tier": name, "reason": str(problem)})
        return found

    def run(self, name: str, progress: Progress, stop: threading.Event | None = None) -> EncryptReport:
        """Replace every plain object of a tier; from the first moment on, whoever puts one encrypts it.

        Raises:
            UsageError: the tier is encrypted already, not this archive's, or no key is set.
            TierError: it cannot be listed, or there is no room for temporary files.
        """
        tier, stop, report = self._tiers.writable(name), stop or threading.Event(), EncryptReport()
        if not isinstance(tier, SwitchingTier):
            raise UsageError(f"tier {name}: every object there is encrypted already")
        tier.sealed.keyrings.ensure_name_key()
        seen: set[ObjectKey] = set()
        # Who looked for a keyring just before there was one may put a plain object after the list.
        while not stop.is_set():
            due = [(key, stat) for key, stat in self._plain(tier) if key not in seen]
            if not due:
                break
            seen.update(key for key, _ in due)
            self._replace_all(name, tier, due, report, progress, stop)
        # What puts that died began before is plain, too.
        tier.plain.discard_temporaries(LEFT_BEHIND_SECONDS)
        report.stopped = stop.is_set()
        return report

    @staticmethod
    def _plain(tier: SwitchingTier) -> list[tuple[ObjectKey, ObjectStat]]:
        """What lies there in plain bytes, what says most of patients first."""
        found = [item for item in tier.sealed.strangers() if item[0].partition("/")[0] != OWNER_PREFIX]
        return sorted(found, key=lambda item: (item[0].startswith(PackKind.PIXEL.prefix), item[0]))

    def _replace_all(
        self,
        name: str,
        tier: SwitchingTier,
        due: list[tuple[ObjectKey, ObjectStat]],
        report: EncryptReport,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        tier.sealed.keyrings.expect(len(due))
        progress.start(sum(stat.size for _, stat in due), f"encrypting {name}")

        def replace(item: tuple[ObjectKey, ObjectStat]) -> str | None:
            if stop.is_set():
                return None
            try:
                self._replace(name, tier, *item)
            except (TierFull, CatalogError):
                stop.set()
                raise
            except DicomfsError as problem:
                return str(problem)
            return ""

        with ThreadPoolExecutor(tier.traits.connections, thread_name_prefix="encrypting") as pool:
            for (key, stat), problem in zip(due, pool.map(replace, due), strict=True):
                progress.advance(stat.size)
                if problem:
                    report.left.append((key, problem))
                elif problem is not None:
                    report.objects += 1
                    report.bytes += stat.size
        progress.done()

    def _replace(self, name: str, tier: SwitchingTier, key: ObjectKey, stat: ObjectStat) -> None:
        kind = key.partition("/")[0]
        if kind not in _OURS:
            raise TierError(name, key, "is nothing of an archive: left as it is")
        with unnamed_file(self._folder, key) as (descriptor, path):
            try:
                digest = fetch_into(descriptor, tier.plain, key, stat.size)
            except ObjectNotFound:
                return  # gone meanwhile
            if kind in _NAMED_BY_DIGEST and digest != name_digest(key):
                self._heal_damaged(name, tier, key, stat.size)
                return
            try:
                tier.sealed.put(key, path, digest)
            except ObjectExists:
                # Damaged, or left by who died: nobody was told to read it while the plain one is there.
                tier.sealed.delete(key)
                tier.sealed.put(key, path, digest)
        if digest_of(tier.sealed, key, stat.size) != digest:
            raise TierError(name, key, "other bytes come back than were put; the plain object stays")
        with locked(self._lock):
            try:
                tier.plain.stat(key)
            except ObjectNotFound:
                # Somebody deleted the object meanwhile: the encrypted one must go, too.
                tier.sealed.destroy([key])
                return
            with self._catalog.write() as writer:
                writer.note_verified(key, name, time.time_ns())
            tier.plain.delete(key)

    def _heal_damaged(self, name: str, tier: SwitchingTier, key: ObjectKey, size: int) -> None:
        """A plain object that is not what its name says is replaced from another tier, encrypted.

        A snapshot is removed.
        """
        with contextlib.suppress(ObjectNotFound):
            if digest_of(tier.sealed, key, size) == name_digest(key):
                tier.plain.delete(key)
                return
        if key.startswith(f"{SNAPSHOT_PREFIX}/"):
            tier.plain.delete(key)  # of no use to anybody; the next one holds all that it held
            logger.warning("removed a damaged snapshot", extra={"tier": name, "object": key})
            return
        if self._catalog.find_object(key) is None:
            raise ObjectDamaged(name, key, "its bytes do not match its name, and the index does not know it")
        self._heal(key, name)
        logger.warning("replaced a damaged plain object", extra={"tier": name, "object": key})
