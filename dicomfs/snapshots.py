"""Snapshots of the catalog: made, shipped to every tier that holds objects, and removed when they are old.

Owns when one is due, what goes into it and in which order.  A snapshot holds what `dicomfs.recover` would
read from header packs and journal, so that it need not (docs/adr/0021-snapshots-hold-facts.md).  It needs no
lock: it is about objects that never change, and tombstones come from the journal that it holds itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs import __version__
from dicomfs.config import SnapshotSettings
from dicomfs.copies import Copies
from dicomfs.errors import CatalogError, DicomfsError, FormatError, KeyDestroyed, TierError, TierFull
from dicomfs.format.journal import InstancesForgotten, decode_journal
from dicomfs.format.keys import SNAPSHOT_PREFIX, parse_journal_key
from dicomfs.format.snapshot import (
    About,
    HeaderFacts,
    PartFacts,
    SnapshotReader,
    SnapshotWriter,
    StandInFacts,
)
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import ObjectKey, holds_frames, is_header_pack
from dicomfs.packs import PackSource
from dicomfs.progress import Progress
from dicomfs.snapshot_files import FoundSnapshot, find_snapshots, opened_snapshot
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import Tier
from dicomfs.tiers.fetching import unnamed_file

logger = logging.getLogger(__name__)

_DAY_NS = 86400 * 10**9
_LAST = 1 << 40
"""A header pack of which no part is known comes behind all series."""


@dataclass(slots=True)
class SnapshotReport:
    """What was made, and where it lies."""

    key: ObjectKey | None = None
    """None where nothing was made."""
    bytes: int = 0
    headers: int = 0
    """Header packs whose facts it holds."""
    journal: int = 0
    """Journal objects that it holds."""
    tiers: list[str] = field(default_factory=list)
    """Where it lies, read back."""
    removed: int = 0
    """Older ones that were removed, on all tiers."""
    left_out: list[tuple[ObjectKey, str]] = field(default_factory=list)
    """Objects that could not be read, and why: `recover` will have to read them."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(tier, reason)."""
    stopped: bool = False


@dataclass(slots=True)
class _Journaled:
    """What the journal says."""

    documents: int = 0
    last: int = 0
    forgotten: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Series -> positions."""
    lately: bool = False
    """Whether something was forgotten that the snapshot before this one has."""


class Snapshots:
    """Those of one archive.  Several at a time do no harm."""

    def __init__(
        self,
        archive_id: bytes,
        catalog: Catalog,
        tiers: TierSet,
        copies: Copies,
        source: PackSource,
        journal: Journal,
        folder: Path,
        settings: SnapshotSettings,
    ) -> None:
        """``source`` reads packs; ``folder`` is for temporary files."""
        self._archive_id, self._catalog, self._tiers, self._copies = archive_id, catalog, tiers, copies
        self._source, self._journal, self._folder, self._settings = source, journal, folder, settings

    def is_due(self, now_ns: int | None = None) -> bool:
        """Whether enough has changed since the last one, or something and it is old.

        Raises:
            TierError: the local tier cannot be asked.
        """
        headers = sum(is_header_pack(record.key) for record in self._catalog.objects())
        last = max(map(parse_journal_key, self._journal.list()), default=0)
        newest = next(iter(self._found(self._tiers.local)), None)
        if newest is None:
            return bool(headers)
        about = newest.about
        changes = abs(headers - about.headers) + max(0, last - about.sequence)
        covered = about.headers + about.sequence
        if changes >= max(self._settings.changes, covered // 10):
            return True
        now = time.time_ns() if now_ns is None else now_ns
        return changes > 0 and now - about.time_ns >= self._settings.days * _DAY_NS

    def make(self, progress: Progress, stop: threading.Event | None = None) -> SnapshotReport:
        """Make one and ship it; a tier that fails is told and passed over.

        Raises:
            TierError: the local tier cannot be written.
            CatalogError: the catalog cannot be read.
        """
        report, stop = SnapshotReport(), stop or threading.Event()
        with unnamed_file(self._folder, SNAPSHOT_PREFIX) as (descriptor, path):
            key = self._write(descriptor, report, progress, stop)
            if key is None:
                report.stopped = True
                return report
            report.key = key
            for name in self._places():
                try:
                    if name != LOCAL:
                        # A snapshot must not know of decisions that the tier's own journal lacks.
                        self._journal.ship(self._tiers.writable(name))
                    self._copies.put_proven(key, report.bytes, path, name)
                except CatalogError:
                    raise
                except DicomfsError as problem:
                    if name == LOCAL:
                        raise
                    report.failed.append((name, str(problem)))
                    continue
                report.tiers.append(name)
        self._remove_old(report)
        return report

    def tidy(self, progress: Progress) -> SnapshotReport:
        """Remove those that are old, and all that hold something of what was forgotten since.

        A new one is made before, where one of these is the newest.  Raises as `make` does.
        """
        newest = next(iter(self._found(self._tiers.local)), None)
        if newest is not None and newest.about.sequence < self._last_tombstone(newest.about.sequence):
            try:
                return self.make(progress)
            except TierError as problem:
                report = SnapshotReport(failed=[(LOCAL, str(problem))])
        else:
            report = SnapshotReport()
        self._remove_old(report)
        return report

    # what it holds

    def _write(
        self, descriptor: int, report: SnapshotReport, progress: Progress, stop: threading.Event
    ) -> ObjectKey | None:
        # Before the list of objects: what is forgotten while this runs is decided by the journal after it.
        numbers = [parse_journal_key(key) for key in self._journal.list()]
        records = sorted(
            (record for record in self._catalog.objects() if is_header_pack(record.key)), key=self._place
        )
        about = About(time.time_ns(), __version__, max(numbers, default=0), len(records))
        with ExitStack() as held:
            before = self._before(held)
            try:
                with open(descriptor, "wb", buffering=1 << 20, closefd=False) as file:
                    writer = SnapshotWriter(file, self._archive_id, about)
                    journaled = self._add_journal(writer, numbers, before)
                    progress.start(sum(record.size for record in records), "making a snapshot")
                    for record in records:
                        if stop.is_set():
                            return None
                        report.headers += self._add_header(writer, record, before, journaled, report)
                        progress.advance(record.size)
                    self._add_stand_ins(writer, before, report)
                    key = writer.finish()
                    file.flush()
                report.bytes, report.journal = os.fstat(descriptor).st_size, journaled.documents
            except OSError as problem:
                raise TierFull(LOCAL, "snapshot", f"cannot be written: {problem.strerror}") from problem
            finally:
                progress.done()
        return key

    def _place(self, record: ObjectRecord) -> tuple[int, ObjectKey]:
        """Recovery commits series by series: what they need lies in this order."""
        series = (series for series, _ in self._catalog.parts_using(record.key))
        return min(series, default=_LAST), record.key

    def _before(self, held: ExitStack) -> SnapshotReader | None:
        """The newest one, of which most can be taken over."""
        for found in self._found(self._tiers.local):
            try:
                return held.enter_context(opened_snapshot(self._tiers.local, found, self._folder))
            except (FormatError, TierError) as problem:
                logger.warning("snapshot not read", extra={"object": found.key, "reason": str(problem)})
        return None

    def _add_journal(
        self, writer: SnapshotWriter, numbers: Sequence[int], before: SnapshotReader | None
    ) -> _Journaled:
        journaled, there = _Journaled(last=max(numbers, default=0)), set(numbers)
        copied: set[int] = set()
        if before is not None:
            for number, data in before.journal():
                if number in there:
                    self._take(writer, journaled, number, data)
                    copied.add(number)
        known = sum(map(len, journaled.forgotten.values()))
        for key in self._journal.list():
            number = parse_journal_key(key)
            if number in there and number not in copied:
                try:
                    data, _ = self._journal.checked(key)
                except (TierError, FormatError) as problem:
                    logger.warning("journal object left out", extra={"object": key, "reason": str(problem)})
                    continue
                self._take(writer, journaled, number, data)
        journaled.lately = sum(map(len, journaled.forgotten.values())) > known
        return journaled

    def _take(self, writer: SnapshotWriter, journaled: _Journaled, number: int, data: bytes) -> None:
        for entry in decode_journal(data).entries:
            if isinstance(entry, InstancesForgotten):
                for instance in entry.instances:
                    journaled.forgotten[instance.series].add(instance.position)
        writer.add_journal(number, data)
        journaled.documents += 1

    def _add_header(
        self,
        writer: SnapshotWriter,
        record: ObjectRecord,
        before: SnapshotReader | None,
        journaled: _Journaled,
        report: SnapshotReport,
    ) -> bool:
        key = record.key
        try:
            if before is not None and not (journaled.lately and _holds(before, key, journaled)):
                try:
                    if writer.copy_header(before, key, record.size):
                        return True
                except FormatError as problem:
                    logger.warning("facts not taken over", extra={"object": key, "reason": str(problem)})
            count = len(self._source.headers(key).parts)
            parts = [self._source.identified_part(key, index) for index in range(count)]
            facts = [PartFacts.of(part, journaled.forgotten.get(part.series.number, set())) for part in parts]
            writer.add_header(HeaderFacts(key, record.size, tuple(facts)))
        except KeyDestroyed:
            return False  # on purpose
        except (TierError, FormatError) as problem:
            report.left_out.append((key, str(problem)))
            return False
        return True

    def _add_stand_ins(
        self, writer: SnapshotWriter, before: SnapshotReader | None, report: SnapshotReport
    ) -> None:
        known = {} if before is None else {(one.key, one.size): one for one in before.stand_ins()}
        for record in self._catalog.objects():
            if not holds_frames(record.key) or not self._is_one_of_several(record):
                continue
            facts = known.get((record.key, record.size))
            if facts is None:
                try:
                    packing = self._source.packing(record.key)
                except KeyDestroyed:
                    continue
                except (TierError, FormatError) as problem:
                    report.left_out.append((record.key, str(problem)))
                    continue
                names = tuple(other.key for other in packing.stands_for)
                facts = StandInFacts(record.key, record.size, packing.profile_name, names)
            writer.add_stand_in(facts)

    def _is_one_of_several(self, record: ObjectRecord) -> bool:
        """Whether a pack stands in for others, or has twins: what recovery has to tell apart."""
        family = self._catalog.family(record.key)
        return bool(self._catalog.names_of(record.key)) or (family is not None and len(family.members) > 1)

    # where it lies

    def _places(self) -> list[str]:
        """The local tier, and those that hold objects: from these an archive can be recovered."""
        holding = {tier for record in self._catalog.objects() for tier in record.tiers}
        return [name for name in self._tiers.names if name == LOCAL or name in holding]

    def _found(self, tier: Tier) -> list[FoundSnapshot]:
        found, _ = find_snapshots(tier)
        return [one for one in found if one.archive_id == self._archive_id]

    def _remove_old(self, report: SnapshotReport) -> None:
        """All but the last few, and all that came before the last tombstone, as far as tiers can be had."""
        for name in self._tiers.names:
            try:
                found, bad = find_snapshots(self._tiers[name])
                mine = [one for one in found if one.archive_id == self._archive_id]
                if not mine and not bad:
                    continue
                tombstone = self._last_tombstone(min((one.about.sequence for one in mine), default=0))
                old = [one.key for one in mine[self._settings.keep :]]
                old += [one.key for one in mine[: self._settings.keep] if one.about.sequence < tombstone]
                # What cannot be read is of no use to anybody.
                old += [one.key for one in bad]
                if old:
                    self._tiers.destroy(name, old)
                    report.removed += len(old)
            except CatalogError:
                raise
            except (TierError, FormatError) as problem:
                if name not in [tier for tier, _ in report.failed]:
                    report.failed.append((name, str(problem)))
            except DicomfsError as problem:
                # Not this archive's to write, or without its key: nothing of ours is old there.
                logger.info("snapshots left alone", extra={"tier": name, "reason": str(problem)})

    def _last_tombstone(self, after: int) -> int:
        """Number of the last journal object above ``after`` that says what was forgotten; 0 without one."""
        for key in reversed(self._journal.list()):
            number = parse_journal_key(key)
            if number <= after:
                return 0
            try:
                entries = self._journal.read(key).entries
            except (TierError, FormatError):
                return number  # it may be one
            if any(isinstance(entry, InstancesForgotten) for entry in entries):
                return number
        return 0


def _holds(before: SnapshotReader, key: ObjectKey, journaled: _Journaled) -> bool:
    """Whether a snapshot tells something of a header pack that was forgotten since."""
    facts = before.header(key)
    return facts is not None and not all(
        part.agrees(journaled.forgotten.get(part.series.number, ())) for part in facts.parts
    )
