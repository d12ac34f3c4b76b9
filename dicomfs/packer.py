"""Packing: plan → encode → seal → place → commit → release, batch by batch.

The story of the write side in one place; the stages are in ``packing/``.  Raw bytes leave the spool only
after the packed copy was read back from the device, compared and placed durably, and the catalog's one
write transaction, the commit point, has named it.  A batch that fails leaves the spool as it was.
Two batches are under way at a time.
"""

from __future__ import annotations

import collections
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from dicomfs.accept import number_marks
from dicomfs.codec.base import Profile
from dicomfs.errors import (
    CatalogFull,
    DamagedError,
    DicomfsError,
    NotFoundError,
    ObjectNotFound,
    TierError,
    TierFull,
)
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.locks import locked
from dicomfs.model import FRAME_KINDS, InstanceId, ObjectKey, is_header_pack
from dicomfs.packing.build import BuiltBatch, build_batch
from dicomfs.packing.commit import end_intents, part_rows
from dicomfs.packing.encode import StackEncoder
from dicomfs.packing.links import Linker
from dicomfs.packing.pipeline import side_by_side
from dicomfs.packing.plan import BatchPlan, batches, plan_batch
from dicomfs.packing.run import PackRun, Stopped
from dicomfs.packing.seal import SPOOL_MISSING, SPOOL_ROTTEN, Staged, Staging, clear_staging, mismatches
from dicomfs.packing.spooled import UnreadableFile
from dicomfs.packing.together import Gathering, StagedFiles, Together, due
from dicomfs.paths import ArchivePaths
from dicomfs.progress import NullProgress, Progress, SharedProgress
from dicomfs.spool import Spool, SpooledFile
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)

_ROOM = 3
"""Free space for packing parts together, in their raw bytes: these, and the packs at their worst."""

Group = Sequence[tuple[int, Sequence[SpooledRecord]]]


@dataclass(slots=True)
class PackReport:
    """What a run of the packer did."""

    instances: int = 0
    series_numbers: set[int] = field(default_factory=set)
    raw_bytes: int = 0
    stored_bytes: int = 0
    whole: collections.Counter[str] = field(default_factory=collections.Counter)
    """Why instances were stored without splitting -> how many."""
    codecs: collections.Counter[str] = field(default_factory=collections.Counter)
    """Codec -> frames."""
    together: int = 0
    """Parts that were packed again, together with others."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """What waits in the spool because packing it failed: (series or instance, reason)."""
    stopped: bool = False
    """It was asked to stop; what is not counted here still waits."""

    @property
    def series(self) -> int:
        """How many series the instances are of."""
        return len(self.series_numbers)

    def fail(self, instance: InstanceId, reason: str) -> None:
        """List an instance, once."""
        failure = (f"instance {instance.series}/{instance.position}", reason)
        if failure not in self.failed:
            self.failed.append(failure)


class Packer:
    """Packs what the spool holds.  One at a time per archive: a lock file orders the processes.

    What is packed refers to no pack that is to be purged.  ``tiers`` are all that the archive has.
    ``clear_temporaries`` removes what writers that died left on the tier besides objects; it is called when
    nobody writes there.
    """

    def __init__(
        self,
        paths: ArchivePaths,
        archive_id: bytes,
        catalog: Catalog,
        spool: Spool,
        tier: Tier,
        clear_temporaries: Callable[[], object],
        tiers: Sequence[str],
    ) -> None:
        self._paths, self._archive_id, self._clear_temporaries = paths, archive_id, clear_temporaries
        self._catalog, self._spool, self._tier, self._tiers = catalog, spool, tier, tiers
        self._linker = Linker(paths.frame_index, catalog, tier)
        self._counting = threading.Lock()
        self._parts_given: dict[int, int] = {}
        """Series -> number for its next part: a batch takes its own before the one before is committed."""

    def pack(
        self,
        profile: Profile,
        reorder_bytes: int,
        progress: Progress,
        stop: threading.Event | None = None,
        only: Container[int] | None = None,
    ) -> PackReport:
        """Pack all that waits, or the series ``only``.  Returns when it is sealed and committed.

        ``reorder_bytes`` bounds the stacks that may be stored in another order than they are read in.
        What fails is listed in the report and stays in the spool.  Once ``stop`` is set, a batch that is
        already sealed is committed, and what is under way is dropped: the next run packs it.

        Raises:
            TierFull, CatalogFull: there is no space; what was committed before stays committed.
        """
        report, stop = PackReport(), stop or threading.Event()
        workers = os.cpu_count() or 1
        with (
            locked(self._paths.pack_lock),
            ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool,
            self._linker.opened(),
            self._linker.without(self._tainted()),
        ):
            self._clean_up()
            self._linker.catch_up()
            progress.start(self._catalog.counts().spool_bytes, "packing")
            run = PackRun(pool, workers, profile, reorder_bytes, SharedProgress(progress), stop)
            try:
                side_by_side(
                    batches(self._catalog, only), lambda group: self._pack_or_stop(group, run, report), stop
                )
                self._pack_together(run, report)
            finally:
                # What stopped us may be a full disk: do not sit on the space until the next run.
                clear_staging(self._paths.staging)
            progress.done()
        return report

    def _tainted(self) -> set[ObjectKey]:
        """What holds something of what was forgotten, by every name."""
        return self._catalog.read_as(self._catalog.tainted())

    def _clean_up(self) -> None:
        """Finish what a packer that died left behind: staged files, unplaced objects, packed raw bytes."""
        clear_staging(self._paths.staging)
        # Header packs first: while one is there, `recover` takes it for committed and needs what it names.
        intents = sorted(self._catalog.intents(), key=lambda i: not is_header_pack(i.key))
        end_intents(self._catalog, self._tier, [intent.key for intent in intents])
        self._release([(file.id, file.sha256) for file in self._packed_files()])
        with locked(self._paths.accept_lock):
            # Nobody else writes to the spool or to the tier while both locks are held.
            self._spool.tidy()
            self._clear_temporaries()

    def _packed_files(self) -> Iterator[SpooledFile]:
        """Spooled files whose packs are committed, and still there: the index may be a recovered one."""
        whole: dict[ObjectKey, bool] = {}
        for file in self._spool.files():
            if not self._catalog.is_packed(file.id):
                continue
            header = self._catalog.part_of(file.id).header_key
            if header not in whole:
                whole[header] = all(map(self._placed, [header, *self._catalog.references(header)]))
            if whole[header]:
                yield file
            else:
                logger.error("raw bytes kept: a pack is missing", extra={"instance": str(file.id)})

    def _placed(self, key: ObjectKey) -> bool:
        try:
            self._tier.stat(self._catalog.placed(key))
        except ObjectNotFound:
            return False
        return True

    def _pack_or_stop(self, group: Group, run: PackRun, report: PackReport) -> None:
        try:
            self._pack_group(group, run, report)
        except Stopped:
            report.stopped = True

    def _pack_group(self, group: Group, run: PackRun, report: PackReport) -> None:
        """Pack one batch; where it fails, its series one by one, so that one bad series stops no other."""
        try:
            self._pack_batch(group, run, report)
        except (TierError, CatalogFull):
            raise
        except DicomfsError as problem:
            if len(group) > 1:
                for series in group:
                    self._pack_group([series], run, report)
                return
            logger.warning("series not packed", extra={"series": group[0][0], "reason": str(problem)})
            with self._counting:
                report.failed.append((f"series {group[0][0]}", str(problem)))

    def _pack_batch(self, group: Group, run: PackRun, report: PackReport, *, again: bool = False) -> None:
        """Pack a batch; what does not come back is stored whole, what cannot be read stays in the spool."""
        staging = Staging(self._paths.staging, self._archive_id, run.profile.value)
        try:
            sealed = self._sealed(group, staging, run, report)
            if sealed is not None:
                plan, built = sealed
                assert built.headers is not None
                # A pack that comes out as one that is there already is the same object.
                new = [pack for pack in built.packs if not self._catalog.has_object(pack.key)]
                try:
                    self._place_and_commit(plan, staging, built, run.profile.value)
                except NotFoundError:
                    # A pack that frames were found in was collected meanwhile: they are found no more.
                    keys = [built.headers.key, *(pack.key for pack in built.packs)]
                    end_intents(self._catalog, self._tier, keys)
                    if again:
                        raise
                    self._pack_batch(group, run, report, again=True)
                    return
                for pack in built.packs:
                    self._linker.add(self._catalog.placed(pack.key))
                with self._counting:
                    _count(report, plan, built, [*new, built.headers])
        finally:
            staging.clear()

    def _pack_together(self, run: PackRun, report: PackReport) -> None:
        """Where series got many small parts, pack these again as one; what fails stays as it is."""
        waiting = {self._catalog.series(number).study for number in report.series_numbers}
        while waiting and not run.stop.is_set():
            found = next(due(self._catalog, waiting), None)
            if found is None or shutil.disk_usage(self._paths.staging).free < _ROOM * found.raw_bytes:
                return
            try:
                self._pack_parts(found, run)
            except Stopped:
                report.stopped = True
            except DicomfsError as problem:
                logger.warning("parts not packed together", extra={"reason": str(problem)})
                waiting.discard(found.study)
            else:
                report.together += len(found.parts)

    def purge(
        self, found: Together, profile: Profile, reorder_bytes: int
    ) -> tuple[set[ObjectKey], set[ObjectKey]]:
        """Pack parts again without what was forgotten; the objects left over, and those made.

        The first are condemned on all tiers, to be destroyed by the caller.

        Raises:
            TierFull: there is no room for their raw bytes.
            TierError, FormatError, CodecError: they cannot be had; nothing was changed.
        """
        workers = os.cpu_count() or 1
        with (
            locked(self._paths.pack_lock),
            ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool,
            self._linker.opened(),
        ):
            self._clean_up()
            self._linker.catch_up()
            if shutil.disk_usage(self._paths.staging).free < _ROOM * found.raw_bytes:
                raise TierFull("staging", "", f"{_ROOM * found.raw_bytes} bytes are needed to pack it again")
            run = PackRun(
                pool, workers, profile, reorder_bytes, SharedProgress(NullProgress()), threading.Event()
            )
            return self._pack_parts(found, run, purge=True)

    def _pack_parts(
        self, found: Together, run: PackRun, *, purge: bool = False
    ) -> tuple[set[ObjectKey], set[ObjectKey]]:
        """Pack the raw files of parts again, commit the new part in place of the old ones, delete those.

        Of the old objects those that hold something of what was forgotten, or all to ``purge``, are condemned
        on all tiers.
        """
        tainted = self._tainted()
        gathering = Gathering(found, self._catalog, self._tier)
        files = StagedFiles(self._paths.staging)
        run = replace(run, profile=gathering.profile(run.profile), progress=NullProgress())
        staging = Staging(self._paths.staging, self._archive_id, run.profile.value)
        again = Packer(
            self._paths,
            self._archive_id,
            self._catalog,
            files,
            self._tier,
            self._clear_temporaries,
            self._tiers,
        )
        again._linker = self._linker
        try:
            with self._linker.without(gathering.left_over() | tainted):
                group = gathering.files(files)
                report = PackReport()
                sealed = again._sealed(group, staging, run, report)
            if sealed is None or report.failed:
                raise DamagedError("parts", "; ".join(reason for _, reason in report.failed))
            plan, built = sealed
            assert built.headers is not None
            new = {built.headers.key, *(key for part in built.parts for key in part.packs)}
            gone = gathering.left_over(new) - new
            condemned = gone if purge else gone & tainted
            again._place_and_commit(
                plan,
                staging,
                built,
                run.profile.value,
                lambda writer: gathering.commit(writer, gone - condemned, condemned, self._tiers),
            )
            for pack in built.packs:
                self._linker.add(self._catalog.placed(pack.key))
            end_intents(self._catalog, self._tier, gone - condemned)
            return gone, {pack.key for pack in (*built.packs, built.headers)}
        finally:
            clear_staging(self._paths.staging)

    def _sealed(
        self, group: Group, staging: Staging, run: PackRun, report: PackReport
    ) -> tuple[BatchPlan, BuiltBatch] | None:
        """A batch whose every instance comes back; None where nothing of it can be packed."""
        whole: dict[InstanceId, str] = {}
        rotten = self._lost(group, report)
        while True:
            run.check()
            group = [(series, [r for r in records if r.id not in rotten]) for series, records in group]
            group = [(series, records) for series, records in group if records]
            if not group:
                return None
            try:
                plan = plan_batch(self._catalog, self._spool, group, whole)
                self._linker.link(plan, run)
                built, wrong = self._seal(plan, staging, run)
            except UnreadableFile as problem:
                instance = self._unreadable(group, problem)
                rotten.add(instance)
                if not self._catalog.is_forgotten(instance):
                    report.fail(instance, str(problem))
                continue
            if not wrong:
                return plan, built
            for index, reason in wrong.items():
                instance = plan.instances[index].record.id
                logger.error(
                    "instance differs when read back", extra={"instance": str(instance), "reason": reason}
                )
                if reason == SPOOL_ROTTEN or instance in whole:
                    rotten.add(instance)
                    report.fail(instance, reason)
                whole[instance] = f"stored whole: {reason}"

    def _unreadable(self, group: Group, problem: UnreadableFile) -> InstanceId:
        for _, records in group:
            for record in records:
                if self._spool.path(record.id, record.sha256) == problem.path:
                    return record.id
        raise problem

    def _lost(self, group: Group, report: PackReport) -> set[InstanceId]:
        """Those of a group whose spooled file is missing or has another size."""
        lost: set[InstanceId] = set()
        for _, records in group:
            for record in records:
                try:
                    size = self._spool.path(record.id, record.sha256).stat().st_size
                except FileNotFoundError:
                    if not self._catalog.is_forgotten(record.id):
                        report.fail(record.id, SPOOL_MISSING)
                else:
                    if size == record.size:
                        continue
                    report.fail(record.id, SPOOL_ROTTEN)
                lost.add(record.id)
        return lost

    def _seal(self, plan: BatchPlan, staging: Staging, run: PackRun) -> tuple[BuiltBatch, dict[int, str]]:
        staging.clear()
        encoder = StackEncoder(plan, run)
        marks = number_marks(self._catalog)
        try:
            texts = self._linker.texts(staging)
            built = build_batch(plan, staging, encoder, self._next_part, marks, run.progress.advance, texts)
        finally:
            encoder.close()
        assert built.headers is not None
        jobs = list(enumerate(built.rows))
        placed = self._catalog.placed
        return built, mismatches(self._tier, built.packs, built.headers, plan, jobs, run, placed)

    def _next_part(self, series: int) -> int:
        with self._counting:
            number = max(self._catalog.next_part(series), self._parts_given.get(series, 0))
            self._parts_given[series] = number + 1
        return number

    def _place_and_commit(
        self,
        plan: BatchPlan,
        staging: Staging,
        built: BuiltBatch,
        profile: str,
        first: Callable[[CatalogWriter], None] = lambda _: None,
    ) -> None:
        """Place the sealed packs, commit, release: the steps whose order is the crash contract.

        ``first`` is called in the transaction that commits, before anything else.
        """
        packs, headers, parts = built.packs, built.headers, built.parts
        assert headers is not None
        # The same frames may have been packed before and moved since: then their stand-in is there already.
        staged = [pack for pack in [*packs, headers] if self._catalog.placed(pack.key) == pack.key]
        # Whoever takes away what nobody needs holds this lock: an object cannot go between intent and put.
        with locked(self._paths.placing_lock), self._catalog.write() as writer:
            for pack in staged:
                writer.add_intent(pack.key, "pack")
        for pack in staged:
            self._tier.put(pack.key, pack.path, pack.summary.sha256)
        staging.clear()
        with self._catalog.write() as writer:
            first(writer)
            for pack in staged:
                noted = profile if pack.summary.kind in FRAME_KINDS else ""
                writer.add_object(pack.key, pack.summary.size, self._tier.name, time.time_ns(), noted)
                writer.remove_intent(pack.key)
            # Packs of this batch, and older ones that its frames were found in.
            writer.set_references(headers.key, sorted({key for part in parts for key in part.packs}))
            for index, part in enumerate(parts):
                writer.commit_part(part.series.number, part.part, headers.key, index, part_rows(part))
                writer.set_needs(part.series.number, part.part, part.packs)
        self._release([(instance.record.id, instance.record.sha256) for instance in plan.instances])

    def _release(self, packed: Sequence[tuple[InstanceId, bytes]]) -> None:
        if not packed:
            return
        with locked(self._paths.accept_lock):
            with self._catalog.write_spool() as spooled:
                spooled.remove([instance for instance, _ in packed])
            self._spool.release(packed)


def _count(report: PackReport, plan: BatchPlan, built: BuiltBatch, new: Sequence[Staged]) -> None:
    report.instances += len(plan.instances)
    report.series_numbers |= {series.number for _, _, series, _ in plan.series}
    report.raw_bytes += plan.raw_bytes
    report.stored_bytes += sum(pack.summary.size for pack in new)
    for instance in plan.instances:
        if instance.split.reason:
            report.whole[instance.split.reason] += 1
    for stack in built.stacks:
        report.codecs[stack.trial.codec.name.lower()] += len(stack.places)
