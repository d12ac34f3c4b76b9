"""Collecting what nobody needs: condemned first, deleted after a time of grace if still nobody does.

Two things go: copies that a tier has and the catalog does not place there, left by a crash, a move or an
eviction; and objects that no part, no header pack and no name needs.  Header packs go before the packs they
name, because `recover` takes a header pack for committed.  Journal, keyrings and owners are never looked at.

Nothing new is condemned while something is unknown: a tier that cannot be asked, a header pack that holds
instances the catalog does not know, a recovery that missed something.  What looks unneeded then may not be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.config import GcSettings
from dicomfs.copies import Copies
from dicomfs.errors import CatalogError, DicomfsError, FormatError, KeyDestroyed, TierError
from dicomfs.index.catalog import Catalog
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal
from dicomfs.locks import locked
from dicomfs.model import InstanceId, ObjectKey, PackKind, is_header_pack
from dicomfs.packs import PackSource
from dicomfs.progress import NullProgress, Progress
from dicomfs.snapshots import SnapshotReport
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import LEFT_BEHIND_SECONDS

logger = logging.getLogger(__name__)

_AT_ONCE = 500
"""Copies condemned in one transaction."""
_Copy = tuple[str, ObjectKey]
"""Tier and object."""


@dataclass(slots=True)
class GcReport:
    """What a run found and did."""

    condemned: int = 0
    """Copies that nobody needed for the first time."""
    waiting: int = 0
    """Condemned copies whose time of grace is not over."""
    waiting_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    journal: int = 0
    """Journal objects that were shipped to other tiers."""
    snapshots: int = 0
    """Snapshots that were removed: old ones, and those that know what was forgotten since."""
    temporaries: int = 0
    """What puts that died left on tiers besides objects, and was removed."""
    doubts: list[str] = field(default_factory=list)
    """Why nothing new was condemned."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(object or tier, reason)."""
    stopped: bool = False


@dataclass(slots=True)
class _Survey:
    """What lies where, and what of it nobody needs."""

    listed: dict[str, dict[ObjectKey, int]] = field(default_factory=dict)
    """Tier -> object -> bytes, of the tiers that can be asked."""
    unneeded: set[_Copy] = field(default_factory=set)
    doubts: list[str] = field(default_factory=list)


class Collector:
    """Collects for one archive.  Several at a time do no harm."""

    def __init__(
        self,
        catalog: Catalog,
        tiers: TierSet,
        copies: Copies,
        journal: Journal,
        lock: Path,
        grace: GcSettings,
        tidy_snapshots: Callable[[Progress], SnapshotReport],
    ) -> None:
        """``lock`` is the one held while a copy is recorded or removed."""
        self._catalog, self._tiers, self._copies, self._journal = catalog, tiers, copies, journal
        self._lock, self._grace, self._tidy_snapshots = lock, grace, tidy_snapshots

    def collect(
        self,
        *,
        dry_run: bool = False,
        accept_losses: bool = False,
        stop: threading.Event | None = None,
        now_ns: int | None = None,
    ) -> GcReport:
        """Condemn, and delete what was condemned long enough ago.

        ``accept_losses`` takes what cannot be read or was missing at the last recovery for given up.

        Raises:
            CatalogError: the index failed.
        """
        report, stop = GcReport(), stop or threading.Event()
        now = time.time_ns() if now_ns is None else now_ns
        if not dry_run:
            self._ship(report)
        survey = self._survey(accept_losses=accept_losses)
        report.doubts = survey.doubts
        known = {(one.tier, one.key): one.since_ns for one in self._catalog.condemned()}
        fresh = [copy for copy in sorted(survey.unneeded) if copy not in known] if not survey.doubts else []
        report.condemned = len(fresh)
        if not dry_run:
            if accept_losses:
                with self._catalog.write() as writer:
                    writer.note_missed(0)
            self._condemn(fresh, now)
            self._reprieve(known, survey)
        entries = known | dict.fromkeys(fresh, now)
        due = [copy for copy, since in entries.items() if self._is_due(copy, since, survey, now)]
        for tier, key in entries.keys() - set(due):
            report.waiting += 1
            report.waiting_bytes += survey.listed.get(tier, {}).get(key, 0)
        self._delete(due, survey, report, stop, dry_run=dry_run)
        if not dry_run and not stop.is_set():
            self._clear(report)
            tidied = self._tidy_snapshots(NullProgress())
            report.snapshots = tidied.removed
            told = {name for name, _ in report.failed}
            report.failed += [
                (f"tier {tier}", reason) for tier, reason in tidied.failed if f"tier {tier}" not in told
            ]
        return report

    def condemn_now(self, writer: CatalogWriter, keys: Iterable[ObjectKey]) -> None:
        """Condemn, on every tier and without grace, those of these objects that nobody needs."""
        for key in sorted(keys, key=lambda key: not is_header_pack(key)):
            # What is read by another name is not needed under its own.
            if writer.is_used(key) and self._catalog.has_object(key):
                continue
            if is_header_pack(key):
                # It is never read again: what it names need not wait until it is gone everywhere.
                writer.set_references(key, [])
            for tier in self._tiers.names:
                writer.condemn(key, tier, 0)

    def destroy(self, keys: Collection[ObjectKey]) -> list[tuple[ObjectKey, str]]:
        """Delete those of these objects that nobody needs, at once, on every tier, with their keys.

        What cannot be reached stays condemned and goes with the next `collect` that can; it is returned with
        the reason.
        """
        with self._catalog.write() as writer:
            self.condemn_now(writer, keys)
        left: list[tuple[ObjectKey, str]] = []
        due = [one for one in self._catalog.condemned() if one.since_ns == 0 and one.key in keys]
        for one in sorted(due, key=lambda one: not is_header_pack(one.key)):
            recorded = self._catalog.find_object(one.key)
            try:
                self._delete_one(one.tier, one.key, lasting=True)
            except CatalogError:
                raise
            except DicomfsError as problem:
                if recorded is not None and one.tier in recorded.tiers:
                    left.append((one.key, str(problem)))
        return left

    # looking

    def _survey(self, *, accept_losses: bool) -> _Survey:
        survey = _Survey()
        for name in self._tiers.names:
            try:
                tier = self._tiers[name]
                survey.listed[name] = {
                    key: status.size for kind in PackKind for key, status in tier.list(kind.prefix)
                }
            except DicomfsError as problem:
                survey.doubts.append(f"tier {name} was not looked at: {problem}")
        # After the listings: what was placed meanwhile is known.
        records = {record.key: record for record in self._catalog.objects()}
        intents = {intent.key for intent in self._catalog.intents()}
        for name, listed in survey.listed.items():
            for key in listed:
                record = records.get(key)
                if (record is None or name not in record.tiers) and key not in intents:
                    survey.unneeded.add((name, key))
        for key, record in records.items():
            if key not in intents and not self._catalog.is_used(key):
                survey.unneeded |= {(name, key) for name in record.tiers}
        if not accept_losses:
            survey.doubts += self._unknown_instances(survey)
            missed = self._catalog.missed_by_recovery
            if missed and survey.unneeded:
                survey.doubts.append(f"the last recovery listed {missed} things as missing")
        return survey

    def _unknown_instances(self, survey: _Survey) -> list[str]:
        """Header packs that would go and hold instances that are nowhere else."""
        doubts = []
        for key in sorted({key for _, key in survey.unneeded if is_header_pack(key)}):
            if self._catalog.parts_using(key):
                continue  # a spare copy of one that is in use
            names = [name for name, listed in survey.listed.items() if key in listed]
            reason = self._unknown_in(key, names)
            if reason:
                doubts.append(f"{key}: {reason}")
        return doubts

    def _unknown_in(self, key: ObjectKey, names: Iterable[str]) -> str:
        problem = ""
        for name in names:
            try:
                return self._unknown_of(PackSource(self._tiers[name]), key)
            except KeyDestroyed:
                return ""
            except (TierError, FormatError) as error:
                problem = str(error)
        return problem

    def _unknown_of(self, source: PackSource, key: ObjectKey) -> str:
        for index in range(len(source.headers(key).parts)):
            part = source.part(key, index)
            for entry in part.entries:
                instance = InstanceId(part.series.number, entry.position)
                if not (
                    self._catalog.is_packed(instance)
                    or self._catalog.is_forgotten(instance)
                    or self._catalog.spooled(instance) is not None
                ):
                    return "holds instances that the index does not know; run `dicomfs recover`"
        return ""

    # condemning and deleting

    def _condemn(self, copies: Sequence[_Copy], now: int) -> None:
        for first in range(0, len(copies), _AT_ONCE):
            with self._catalog.write() as writer:
                for tier, key in copies[first : first + _AT_ONCE]:
                    # Those that were placed or needed since are reprieved when their time has come.
                    writer.condemn(key, tier, now)

    def _reprieve(self, known: Iterable[_Copy], survey: _Survey) -> None:
        """Forget what is gone, or needed again."""
        ended = [
            (tier, key)
            for tier, key in known
            if tier in survey.listed
            and (tier, key) not in survey.unneeded
            and (key not in survey.listed[tier] or self._catalog.is_used(key))
        ]
        if ended:
            with self._catalog.write() as writer:
                for tier, key in ended:
                    writer.end_condemned(key, tier)

    def _is_due(self, copy: _Copy, since: int, survey: _Survey, now: int) -> bool:
        tier, _ = copy
        seconds = self._grace.local_grace_seconds if tier == LOCAL else self._grace.remote_grace_seconds
        return tier in survey.listed and (since == 0 or since + seconds * 10**9 <= now)

    def _delete(
        self,
        due: Iterable[_Copy],
        survey: _Survey,
        report: GcReport,
        stop: threading.Event,
        *,
        dry_run: bool,
    ) -> None:
        lasting = {(one.tier, one.key) for one in self._catalog.condemned() if one.since_ns == 0}
        failed: set[str] = set()
        """Tiers where a header pack could not be deleted: what it names stays with it."""
        for tier, key in sorted(due, key=lambda copy: (not is_header_pack(copy[1]), copy)):
            if stop.is_set():
                report.stopped = True
                return
            if tier in failed:
                continue
            try:
                gone = dry_run or self._delete_one(tier, key, lasting=(tier, key) in lasting)
            except CatalogError:
                raise
            except DicomfsError as problem:
                report.failed.append((key, str(problem)))
                if is_header_pack(key):
                    failed.add(tier)
                continue
            report.deleted += gone
            report.deleted_bytes += survey.listed[tier].get(key, 0) if gone else 0

    def _delete_one(self, tier: str, key: ObjectKey, *, lasting: bool) -> bool:
        """Delete a condemned copy unless it is needed; ``lasting``: with its key.

        The catalog lets go first: who links to the object from then on is refused, and a crash leaves a copy
        that nobody names, which stays condemned.
        """
        self._tiers.writable(tier)
        with locked(self._lock):
            record = self._catalog.find_object(key)
            spare = record is not None and tier not in record.tiers and self._catalog.is_used(key)
            if spare and not self._copies.is_elsewhere(key, tier):
                raise TierError(tier, key, "kept: no tier that should have it does; run `dicomfs heal`")
            with self._catalog.write() as writer:
                if not writer.let_go(key, tier):
                    return False
            if lasting:
                self._tiers.destroy(tier, [key])
            else:
                self._tiers.writable(tier).delete(key)
            with self._catalog.write() as writer:
                writer.end_condemned(key, tier)
        logger.info("deleted", extra={"tier": tier, "object": key})
        return True

    def _clear(self, report: GcReport) -> None:
        """Remove what puts that died left on tiers: bytes of patients in a folder, costs in a store."""
        for name in self._tiers.names:
            try:
                report.temporaries += self._tiers.writable(name).discard_temporaries(LEFT_BEHIND_SECONDS)
            except TierError as problem:
                report.failed.append((f"tier {name}", str(problem)))
            except DicomfsError as problem:
                logger.info("temporaries left alone", extra={"tier": name, "reason": str(problem)})

    def _ship(self, report: GcReport) -> None:
        """Bring the journal everywhere, so that no tier misses a decision for long."""
        for name in self._tiers.remote:
            try:
                report.journal += self._journal.ship(self._tiers.writable(name))
            except (TierError, FormatError) as problem:
                report.failed.append((f"tier {name}", str(problem)))
            except DicomfsError as problem:
                logger.info("journal not shipped", extra={"tier": name, "reason": str(problem)})
