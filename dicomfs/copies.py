"""Copies of objects: fetched, placed on further tiers, removed again; each step proven before the next.

Owns the order that keeps every object safe: copy, read back, compare with the object's name, record; remove
only what another tier was proven to hold.  An object's name is the SHA-256 of its bytes, so any copy can be
proven by itself.  Who decides what goes where is somewhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dicomfs.errors import (
    DicomfsError,
    NotFoundError,
    ObjectCold,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    TierError,
)
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.locks import locked
from dicomfs.model import ObjectKey
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import Tier
from dicomfs.tiers.fetching import digest_of, fetch_into, unnamed_file

logger = logging.getLogger(__name__)

_ATTEMPTS = 3


class LastCopy(DicomfsError):
    """Removing this copy would leave too few that were proven."""

    def __init__(self, key: ObjectKey, tier: str, left: int, wanted: int) -> None:
        self.key, self.tier = key, tier
        super().__init__(
            f"{key} stays on tier {tier}: without it {left or 'no'} proven copies would be left, "
            f"{wanted} are wanted"
        )


def name_digest(key: ObjectKey) -> str:
    """The SHA-256 that a pack's name says its bytes have, as hex digits."""
    return key.rsplit("/", 1)[1]


def is_intact(tier: Tier, key: ObjectKey, size: int) -> bool:
    """Whether a tier holds exactly the object of this name: all bytes are read, not from a cache.

    Raises:
        TierError: the tier cannot be asked; that says nothing of the copy.
    """
    path = tier.open_local(key)
    if path is not None:
        _drop_cache(path)
    try:
        return digest_of(tier, key, size) == name_digest(key)
    except (ObjectDamaged, ObjectNotFound):
        return False


class Copies:
    """What moves objects of one archive between its tiers.  Thread-safe; processes take turns."""

    def __init__(self, tiers: TierSet, catalog: Catalog, folder: Path, lock: Path) -> None:
        """``folder`` is for temporary files; ``lock`` is held while a placement changes."""
        self._tiers, self._catalog = tiers, catalog
        self._folder, self._lock = folder, lock

    @property
    def tier_names(self) -> tuple[str, ...]:
        """All tiers, nearest first."""
        return self._tiers.names

    def place(self, key: ObjectKey, to: str) -> bool:
        """Put a copy on a tier, read it back and record it; False where a proven one was recorded already.

        Raises:
            TierError: the tier failed, or no intact copy could be had.
            NotFoundError: the catalog knows no such object.
        """
        record = self._catalog.object(key)
        if to in record.tiers:
            return False
        with self.fetched(record) as path:
            self.place_file(record, path, to)
        return True

    def place_file(self, record: ObjectRecord, path: Path, to: str) -> None:
        """The same from a file that holds the object and does not change; raises as `put_proven` does.

        With it is recorded that it is a twin, where the record says so; NotFoundError where the catalog knows
        its pack no longer.
        """
        for _ in range(_ATTEMPTS):
            self.put_proven(record.key, record.size, path, to)
            with locked(self._lock):
                # What nobody had recorded, gc may have taken away since it was proven.
                if self._holds(to, record):
                    with self._catalog.write() as writer:
                        writer.add_object(record.key, record.size, to, time.time_ns(), record.profile)
                        if record.twin_of is not None:
                            writer.add_twin(record.key, record.twin_of)
                        if to == LOCAL:
                            # Of a family the nearest counts: it is what repack moves.
                            writer.lead(record.key)
                    return
        raise TierError(to, record.key, "is taken away again as soon as it is put")

    def put_proven(self, key: ObjectKey, size: int, path: Path, to: str) -> None:
        """Put an object on a tier and read it back; recording it is up to the caller.

        Raises:
            UsageError: the tier is not this archive's to write.
            TierError: the tier failed, or what it gives back are other bytes.
        """
        tier = self._tiers.writable(to)
        try:
            tier.put(key, path, name_digest(key))
        except ObjectExists:
            # Damaged, or what a writer left that died: nobody was told to read it, so it can be replaced.
            logger.warning("replaced a damaged object", extra={"tier": to, "object": key})
            tier.delete(key)
            tier.put(key, path, name_digest(key))
        except ObjectCold:
            pass  # there already, from a run that died before it was recorded
        if not tier.traits.proves_puts and not _comes_back(tier, key, size):
            raise TierError(to, key, "other bytes come back than were put")

    def evict(self, key: ObjectKey, tier: str, least: int = 1) -> bool:
        """Remove a copy where at least ``least`` other tiers hold one, or a twin; False where there was none.

        The others are asked whether they still have it.  The catalog forgets the copy first: a crash in
        between leaves an object that nobody names, which gc finds.

        Raises:
            LastCopy: too few others hold it.
            UsageError: one of the tiers is not this archive's to write.
            TierError: another tier cannot be asked, or the copy not deleted.
        """
        self._tiers.writable(tier)
        with locked(self._lock):
            family = self._catalog.family(key)
            if family is None:
                raise NotFoundError("object", key)
            if tier not in family.tiers:
                return False
            left = sum(
                any(self._holds(other, one) for one in family.members if other in one.tiers)
                for other in family.tiers
                if other != tier
            )
            if left < max(1, least):
                raise LastCopy(key, tier, left, max(1, least))
            going = [one.key for one in family.members if tier in one.tiers]
            with self._catalog.write() as writer:
                for one in going:
                    writer.remove_placement(one, tier)
            for one in going:
                self._tiers.writable(tier).delete(one)
        return True

    def is_elsewhere(self, key: ObjectKey, but: str) -> bool:
        """Whether another tier than this, that is recorded to hold an object, says so.  Raises TierError."""
        record = self._catalog.find_object(key)
        return record is not None and any(self._holds(name, record) for name in record.tiers if name != but)

    def _holds(self, tier: str, record: ObjectRecord) -> bool:
        """Whether a tier has it, and nobody else may delete it there."""
        try:
            return self._tiers.writable(tier).stat(record.key).size == record.size
        except ObjectNotFound:
            return False

    def heal(self, key: ObjectKey, tier: str) -> None:
        """Replace a damaged or missing copy by an intact one; the bad one stays where there is none.

        Where no other copy of a pack is intact, one of a twin takes its place.

        Raises:
            TierError: there is no intact copy elsewhere, or the tier failed.
        """
        record, family = self._catalog.object(key), self._catalog.family(key)
        self._tiers.writable(tier)
        try:
            with self.fetched(record, but=tier) as path:
                logger.warning("healing", extra={"tier": tier, "object": key})
                with locked(self._lock):
                    self._tiers.writable(tier).delete(key)
                self.place_file(record, path, tier)
                return
        except TierError:
            twins = [] if family is None else [one for one in family.members if one.key != key]
            if not any(self._took_place(twin, record, tier) for twin in twins):
                raise

    def _took_place(self, twin: ObjectRecord, record: ObjectRecord, tier: str) -> bool:
        """Put a twin where a pack is damaged; False where that cannot be."""
        try:
            if tier not in twin.tiers:
                with self.fetched(twin) as path:
                    self.place_file(twin, path, tier)
            elif not is_intact(self._tiers[tier], twin.key, twin.size):
                return False
        except TierError as problem:
            facts = {"tier": tier, "object": twin.key, "reason": str(problem)}
            logger.warning("no twin from here", extra=facts)
            return False
        logger.warning("healing by a twin", extra={"tier": tier, "object": record.key})
        with locked(self._lock):
            with self._catalog.write() as writer:
                writer.remove_placement(record.key, tier)
            self._tiers.writable(tier).delete(record.key)
        return True

    @contextlib.contextmanager
    def fetched(self, record: ObjectRecord, but: str = "") -> Iterator[Path]:
        """A file with the object's bytes, proven by its digest, from the nearest good copy; not to change.

        Raises:
            TierError: no tier gives an intact copy; the most telling error of all.
        """
        worst: DicomfsError = ObjectNotFound("any", record.key)
        if but:
            worst = TierError(but, record.key, "its bytes do not match its name, and no other tier has it")
        for name in self._tiers.names:
            if name == but or name not in record.tiers:
                continue
            with contextlib.ExitStack() as held:
                try:
                    path = held.enter_context(self._from(self._tiers[name], record))
                except DicomfsError as problem:
                    path, worst = None, problem
                else:
                    if path is not None:
                        yield path
                        return
                    worst = TierError(name, record.key, "its bytes do not match its name")
            logger.warning(
                "no copy from here", extra={"tier": name, "object": record.key, "reason": str(worst)}
            )
        raise worst

    @contextlib.contextmanager
    def _from(self, tier: Tier, record: ObjectRecord) -> Iterator[Path | None]:
        """A proven file, or None where the tier's copy is another one."""
        path = tier.open_local(record.key) if tier.traits.local else None
        if path is not None:
            yield path if is_intact(tier, record.key, record.size) else None
            return
        # A file of another tier could be linked by who puts it: that would be no second copy.
        with unnamed_file(self._folder, record.key) as (descriptor, path):
            digest = fetch_into(descriptor, tier, record.key, record.size)
            yield path if digest == name_digest(record.key) else None


def _comes_back(tier: Tier, key: ObjectKey, size: int) -> bool:
    """Whether a tier gives back what was put; of a cold class only the size can be asked."""
    try:
        return is_intact(tier, key, size)
    except ObjectCold:
        return tier.stat(key).size == size


def _drop_cache(path: Path) -> None:
    """Let the next read come from the device: what the page cache holds proves nothing about it."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
