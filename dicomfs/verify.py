"""Verifying: catalog, objects and bytes against each other.  Reports, and repairs no more than reading does.

Plain: every object that the catalog names is on every tier that is said to have it, with its size and a
readable index; who needs which object is counted again; every row agrees with the instance table of its
header pack; every spooled file is there.  Deep: also the SHA-256 of every object, and of every file,
reconstructed as the mount would serve it.  A tier that cannot be asked is told as that, never as damage.
"""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.copies import is_intact
from dicomfs.errors import DicomfsError, MismatchError, ObjectNotFound, TierError, UsageError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import InstanceId, ObjectKey, PackKind, is_header_pack, is_text_pack
from dicomfs.packs import PackSource
from dicomfs.progress import Progress
from dicomfs.reconstruct import Reconstructor, check_whole
from dicomfs.tier_set import TierSet


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong."""

    objects: int = 0
    instances: int = 0
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Harmless: left by a crash, a move or an eviction, and cleaned by the next `pack` or `gc`."""
    unreachable: dict[str, str] = field(default_factory=dict)
    """Tiers that could not be asked, and why: what lies there is neither proven nor damaged."""
    unchecked: int = 0
    """Objects and instances that lie on such tiers only."""


class Verifier:
    """Checks one archive."""

    def __init__(
        self,
        catalog: Catalog,
        tiers: TierSet,
        source: PackSource,
        reconstructor: Reconstructor,
        journal: Journal,
    ) -> None:
        self._catalog, self._tiers, self._source = catalog, tiers, source
        self._reconstructor, self._journal = reconstructor, journal

    def run(self, *, deep: bool, progress: Progress) -> VerifyReport:
        """Check everything; never raises for damage, which is listed."""
        report = VerifyReport()
        counts = self._catalog.counts()
        progress.start(counts.logical_bytes if deep else None, "verifying")
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
            self._objects(pool, report, deep)
            self._instances(pool, report, progress, deep)
        self._journal_objects(report)
        self._references(report, deep=deep)
        counted = self._catalog.recount()
        if counted != counts:
            report.problems.append(
                f"catalog: its counters say {counts}, counting gives {counted}; run `recover`"
            )
        progress.done()
        return report

    def _list(self, report: VerifyReport) -> dict[str, dict[ObjectKey, int]]:
        """What each tier says it has; those that cannot be asked are told and left out."""
        listed: dict[str, dict[ObjectKey, int]] = {}
        for name in self._tiers.names:
            try:
                listed[name] = {
                    key: status.size
                    for kind in PackKind
                    for key, status in self._tiers[name].list(kind.prefix)
                }
            except (TierError, UsageError) as problem:
                report.unreachable[name] = str(problem)
        return listed

    def _objects(self, pool: ThreadPoolExecutor, report: VerifyReport, deep: bool) -> None:
        listed = self._list(report)
        known: dict[str, set[ObjectKey]] = defaultdict(set)
        records = list(self._catalog.objects())
        found = pool.map(lambda record: self._object(record, listed, deep), records)
        for record, problem in zip(records, found, strict=True):
            for name in record.tiers:
                known[name].add(record.key)
            report.objects += 1
            reachable = not listed.keys().isdisjoint(record.tiers)
            report.unchecked += not reachable
            report.bytes_read += record.size if deep and reachable else 0
            if problem:
                report.problems.append(problem)
        report.notes += [
            f"tier {name}: {key}: not referred to"
            for name, keys in listed.items()
            for key in sorted(keys.keys() - known[name])
        ]

    def _object(self, record: ObjectRecord, listed: dict[str, dict[ObjectKey, int]], deep: bool) -> str:
        """What is wrong with an object: every copy is asked for, the nearest one read when ``deep``."""
        names = [name for name in self._tiers.names if name in record.tiers]
        reachable = [name for name in names if name in listed]
        try:
            for name in reachable:
                # Listings may lag behind: only the object itself says that it is missing.
                if listed[name].get(record.key) == record.size:
                    continue
                size = self._tiers[name].stat(record.key).size
                if size != record.size:
                    return f"tier {name}: {record.key}: {size} bytes instead of {record.size}"
            if names and not reachable:
                return ""
            # Before it is read: who reads a bad copy replaces it, where another tier has a good one.
            if deep and not is_intact(self._tiers[reachable[0]], record.key, record.size):
                return f"tier {reachable[0]}: {record.key}: its bytes do not match its name"
            if record.key.startswith("header/"):
                self._source.headers(record.key)
            else:
                self._source.object(record.key)
        except ObjectNotFound as problem:
            # Moved to another profile, or evicted, since it was listed?
            now = self._catalog.find_object(record.key)
            return str(problem) if now is not None and problem.tier in now.tiers else ""
        except DicomfsError as problem:
            return str(problem)
        return "" if names else f"{record.key}: on no tier of this archive"

    def _instances(
        self, pool: ThreadPoolExecutor, report: VerifyReport, progress: Progress, deep: bool
    ) -> None:
        for patient in self._catalog.patients():
            for study in self._catalog.studies(patient.number):
                for series in self._catalog.series_of(study.number):
                    rows = [row.id for row in self._catalog.rows(series.number)]
                    for size, problem in pool.map(lambda one: self._instance(one, report, deep), rows):
                        report.instances += 1
                        report.unchecked += problem is None
                        report.bytes_read += size if deep else 0
                        progress.advance(size)
                        if problem:
                            report.problems.append(problem)

    def _instance(self, instance: InstanceId, report: VerifyReport, deep: bool) -> tuple[int, str | None]:
        """Size, and what is wrong with an instance: nothing, or None where it cannot be asked."""
        what = f"instance {instance.series}/{instance.position}"
        size = 0
        try:
            row = self._catalog.row(instance)
            size = row.size
            reader = self._reconstructor.open(instance)
            try:
                if reader.size != row.size or reader.sha256[:8] != row.sha256_start:
                    return (
                        size,
                        f"{what}: the catalog and the instance table of its pack disagree; run `recover`",
                    )
                if deep:
                    check_whole(reader, what)
            finally:
                reader.close()
        except MismatchError as problem:
            return size, str(problem)
        except (TierError, UsageError) as problem:
            tier = problem.tier if isinstance(problem, TierError) else None
            if report.unreachable and (tier is None or tier in report.unreachable):
                return 0, None
            return size, f"{what}: {problem}"
        except DicomfsError as problem:
            return size, f"{what}: {problem}"
        return size, ""

    def _references(self, report: VerifyReport, *, deep: bool) -> None:
        """Count again what the instances of each header pack need, and compare it with the catalog."""
        for record in list(self._catalog.objects()):
            if not is_header_pack(record.key):
                continue
            try:
                needed, named = self._needs(record.key)
            except DicomfsError:
                continue  # listed where the object itself was checked
            recorded = set(self._catalog.references(record.key))
            report.problems += self._strange_texts(record.key, deep=deep)
            missing = sorted(key for key in needed if not self._catalog.has_object(self._catalog.placed(key)))
            # Rows that were forgotten may be counted or not: it depends on whether they could be read then.
            if not needed <= recorded <= named:
                report.problems.append(
                    f"catalog: {record.key} needs {len(needed)} packs, "
                    f"{len(recorded)} are recorded; run `recover`"
                )
            report.problems += [f"catalog: {record.key} needs {key}, which is not known" for key in missing]
        report.problems += [
            f"catalog: {key}: whose twin it is, is not recorded on both sides; run `recover`"
            for key in self._catalog.broken_twins()
        ]
        lost, wrong = self._catalog.recount_uses()
        if lost or wrong:
            report.problems.append(
                f"catalog: {lost} records of who needs which object are missing and {wrong} are wrong; "
                "run `recover`"
            )

    def _strange_texts(self, header: ObjectKey, *, deep: bool) -> list[str]:
        """Blocks of a header pack that need a shared text with more in it than they hold themselves."""
        if not deep or not any(map(is_text_pack, self._catalog.references(header))):
            return []
        reader = self._source.headers(header)
        try:
            strange = [n for n in range(reader.block_count) if not reader.has_whole_text(n)]
        except DicomfsError:
            return []  # listed where the instances were read
        return [f"{header}: header block {number} needs a text that is not all its own" for number in strange]

    def _needs(self, header: ObjectKey) -> tuple[set[ObjectKey], set[ObjectKey]]:
        """What the instances of a header pack need that the catalog knows, and what all of them name."""
        places = self._catalog.places_in(header)
        needed: set[ObjectKey] = set()
        named: set[ObjectKey] = set()
        for index in range(len(self._source.headers(header).parts)):
            named |= self._source.part(header, index).packs.keys()
            needed |= self._source.needs(header, index, places.get(index, ()))
        return needed, named

    def _journal_objects(self, report: VerifyReport) -> None:
        try:
            keys = self._journal.list()
            report.problems += self._journal.gaps()
        except TierError as problem:
            report.problems.append(str(problem))
            return
        for key in keys:
            report.objects += 1
            try:
                self._journal.read(key)
            except DicomfsError as problem:
                report.problems.append(str(problem))
