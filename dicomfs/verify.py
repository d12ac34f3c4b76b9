"""Verifying: catalog, objects and bytes against each other.  Reports, never repairs.

Plain: every object that the catalog names is on its tier with its size and a readable index, every row
agrees with the instance table of its header pack, every spooled file is there.  Deep: also the SHA-256 of
every object, and of every file, reconstructed as the mount would serve it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.copies import is_intact
from dicomfs.errors import DicomfsError, MismatchError, ObjectNotFound, TierError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.model import InstanceId, PackKind
from dicomfs.packing.together import parts_in_use
from dicomfs.packs import PackSource
from dicomfs.progress import Progress
from dicomfs.reconstruct import Reconstructor, check_whole
from dicomfs.tier_set import LOCAL, TierSet


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong."""

    objects: int = 0
    instances: int = 0
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Harmless: left by a crash and cleaned by the next `pack`."""


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
        self._references(report)
        counted = self._catalog.recount()
        if counted != counts:
            report.problems.append(
                f"catalog: its counters say {counts}, counting gives {counted}; run `recover`"
            )
        progress.done()
        return report

    def _objects(self, pool: ThreadPoolExecutor, report: VerifyReport, deep: bool) -> None:
        known = set()
        records = list(self._catalog.objects())
        for record, problem in zip(records, pool.map(lambda r: self._object(r, deep), records), strict=True):
            known.add(record.key)
            report.objects += 1
            report.bytes_read += record.size if deep else 0
            if problem:
                report.problems.append(problem)
        try:
            for key, _ in self._tiers.local.list(""):
                if key not in known and not key.startswith("journal/") and key.count("/") == 2:
                    report.notes.append(f"tier {LOCAL}: {key}: not referred to")
        except TierError as problem:
            report.problems.append(str(problem))

    def _object(self, record: ObjectRecord, deep: bool) -> str:
        """What is wrong with an object: every copy is asked for, the nearest one read when ``deep``."""
        names = [name for name in self._tiers.names if name in record.tiers]
        try:
            for name in names:
                size = self._tiers[name].stat(record.key).size
                if size != record.size:
                    return f"tier {name}: {record.key}: {size} bytes instead of {record.size}"
            if record.key.startswith("header/"):
                self._source.headers(record.key)
            else:
                self._source.object(record.key)
            if deep and not is_intact(self._tiers[names[0]], record.key, record.size):
                return f"tier {names[0]}: {record.key}: its bytes do not match its name"
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
                    for size, problem in pool.map(lambda instance: self._instance(instance, deep), rows):
                        report.instances += 1
                        report.bytes_read += size if deep else 0
                        progress.advance(size)
                        if problem:
                            report.problems.append(problem)

    def _instance(self, instance: InstanceId, deep: bool) -> tuple[int, str]:
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
        except DicomfsError as problem:
            return size, f"{what}: {problem}"
        return size, ""

    def _references(self, report: VerifyReport) -> None:
        """Count again what the instances of each header pack need, and compare it with the catalog."""
        for record in list(self._catalog.objects()):
            if not record.key.startswith(PackKind.HEADER.prefix + "/"):
                continue
            try:
                parts = parts_in_use(self._catalog, self._source, record.key)
                needed = {key for part in parts for key in self._source.part(record.key, part).packs}
            except DicomfsError:
                continue  # listed where the object itself was checked
            recorded = set(self._catalog.references(record.key))
            missing = sorted(key for key in needed if not self._catalog.has_object(self._catalog.placed(key)))
            if recorded != needed:
                report.problems.append(
                    f"catalog: {record.key} needs {len(needed)} packs, "
                    f"{len(recorded)} are recorded; run `recover`"
                )
            report.problems += [f"catalog: {record.key} needs {key}, which is not known" for key in missing]

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
