"""An archive: the composition root and the public Python interface.

Wires settings, tier, catalog, spool and the use cases; contains no logic of its own beyond that.  Open one
with `Archive.open`, make one with `Archive.create`; both are context managers.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from dicomfs import config
from dicomfs.accept import Acceptor
from dicomfs.codec.trial import Profile
from dicomfs.errors import (
    CatalogBusy,
    CatalogError,
    DamagedError,
    FormatError,
    ObjectNotFound,
    UnsupportedVersion,
    UsageError,
)
from dicomfs.explain import explain
from dicomfs.format.journal import VersionDecision, VersionsDecided
from dicomfs.importer import Importer, ImportReport
from dicomfs.incoming.intake import Intake
from dicomfs.incoming.release import Releaser, StubFolder
from dicomfs.incoming.service import Incoming, prepare
from dicomfs.incoming.stubs import Stubs
from dicomfs.index.catalog import Catalog
from dicomfs.index.guards import Holder, is_read_only
from dicomfs.journal import Journal
from dicomfs.locks import locked
from dicomfs.model import FRAME_KINDS, InstanceId, ObjectKey, PackKind
from dicomfs.packer import Packer, PackReport
from dicomfs.packing.repack import Outcome
from dicomfs.packs import PackSource
from dicomfs.paths import (
    ArchivePaths,
    new_archive_id,
    read_identity,
    sync_folder,
    write_durably,
    write_identity,
)
from dicomfs.progress import NullProgress, Progress
from dicomfs.reconstruct import Reconstructor
from dicomfs.recover import RecoverReport, archive_of, copy_objects, rebuild_spool, recover_catalog
from dicomfs.repacker import Repacker, RepackReport
from dicomfs.spool import Spool
from dicomfs.tiers.base import Tier
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.registry import open_tier
from dicomfs.verify import Verifier, VerifyReport

logger = logging.getLogger(__name__)


class Archive:
    """An open archive.  Reading is thread-safe; writing is ordered between processes by lock files."""

    def __init__(
        self, paths: ArchivePaths, archive_id: bytes, settings: config.Settings, catalog: Catalog
    ) -> None:
        self.paths, self.archive_id, self.settings, self.catalog = paths, archive_id, settings, catalog
        self.writable = True
        self.tier = _local_tier(paths, settings)
        self.spool = Spool(paths.spool)
        self._journal = Journal(self.tier, archive_id)
        self._source = PackSource(self.tier, catalog.placed)
        self.reconstructor = Reconstructor(
            catalog, self.spool, self._source, settings.mount.decoded_cache_bytes
        )

    @classmethod
    def create(cls, root: Path) -> Archive:
        """Make a new archive in an empty or missing folder and open it.

        Raises:
            UsageError: the folder holds something or cannot be made.
        """
        paths = ArchivePaths(root)
        paths.make()
        archive_id = new_archive_id()
        settings = config.Settings()
        write_durably(paths.settings, config.TEMPLATE)
        catalog = Catalog.create(paths.index, archive_id)
        write_identity(paths, archive_id)
        return cls(paths, archive_id, settings, catalog)

    @classmethod
    def open(cls, root: Path) -> Archive:
        """Open an archive; to read only where its disk is mounted so.

        Raises:
            UsageError, ConfigError: there is none, or its settings are wrong.
            CatalogOutdated: its index is missing; `recover` rebuilds it.
            CatalogError, FormatError: it cannot be opened; CatalogFull where `open_to_read` may do.
        """
        if root.is_dir() and is_read_only(root):
            return cls.open_to_read(root)
        paths = ArchivePaths(root)
        archive_id = read_identity(paths)
        settings = config.load(root)
        archive = cls(paths, archive_id, settings, Catalog.open(paths.index))
        archive._check_spool_index()
        archive._finish_acceptance()
        return archive

    @classmethod
    def open_to_read(cls, root: Path) -> Archive:
        """Open an archive without writing anything, as its disk may be full or read-only; raises as `open`.

        What an acceptance that died left is shown as it is.
        """
        paths = ArchivePaths(root)
        catalog = Catalog.open(paths.index, readonly=True)
        archive = cls(paths, read_identity(paths), config.load(root), catalog)
        archive.writable = False
        if catalog.spool_stale:
            rebuild_spool(catalog, archive.spool, ())
            with catalog.write_spool() as writer:
                writer.mark_rebuilt()
        return archive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Decode nothing more ahead of readers and close the catalog."""
        self.reconstructor.close()
        self.catalog.close()

    def import_paths(
        self, sources: Sequence[Path], *, keep_others: bool = False, progress: Progress | None = None
    ) -> ImportReport:
        """Import files and folders; everything counted as taken is durable when it returns.

        Packs in between when the spool grows beyond its limit, so that a large tree needs no second copy.
        """
        self._require_writable()
        progress = progress or NullProgress()
        reserve_bytes = self.settings.archive.minimum_free_bytes
        importer = Importer(self.paths.root, self.catalog, self.spool, self.acceptor(), reserve_bytes)
        report = ImportReport()
        for _ in importer.run(sources, report, self.paths.kept_others if keep_others else None, progress):
            if self.catalog.counts().spool_bytes > self.settings.pack.spool_bytes:
                self.pack(progress=NullProgress())
        return report

    def acceptor(self) -> Acceptor:
        """What gives numbers and names to files that lie on a desk of the spool."""
        return Acceptor(
            self.paths, self.catalog, self.spool, self._journal, self.reconstructor, self._repair_spool
        )

    def incoming(self, uid: int, gid: int) -> Incoming:
        """The writable tree, for one mount; its folder is made for this owner where there is none.

        Raises OSError: the folder cannot be used.
        """
        folder = StubFolder(self.paths.stubs, self.paths.incoming)
        if self.writable:
            prepare(self.paths.incoming, uid, gid)
            folder.prepare()
            try:
                self.spool.clear_dead_desks()
            except OSError as problem:
                logger.warning("what dead workers left stays: %s", problem.strerror)
        reserve = self.settings.archive.minimum_free_bytes
        intake = Intake(self.spool, self.catalog, self.acceptor(), reserve)
        stubs = Stubs(self.reconstructor.open, folder.sealer(), lost=folder.is_lost())
        quiet_seconds = self.settings.pack.quiet_seconds
        return Incoming(self.paths.incoming, intake, stubs, folder.waiting, quiet_seconds)

    def quiet_series(self) -> list[int]:
        """Series that wait in the spool and got nothing new for a while; all where space is short."""
        waiting = self.catalog.spooled_series()
        if self.is_pressed():
            return waiting
        latest = time.time() - self.settings.pack.quiet_seconds
        return [series for series in waiting if self.spool.changed_s(series) <= latest]

    def is_pressed(self) -> bool:
        """Whether what waits takes space that is needed: packing is not to wait either."""
        _, free = self.usage()
        spooled = self.catalog.counts().spool_bytes
        short = free < 2 * self.settings.archive.minimum_free_bytes
        return bool(spooled) and (short or spooled > self.settings.pack.spool_bytes)

    def pack(
        self,
        profile: str | None = None,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        *,
        only: Container[int] | None = None,
    ) -> PackReport:
        """Pack all that waits in the spool, or the series ``only``; returns when committed or stopped.

        Files under ``incoming/`` whose bytes are packed become stubs then.
        """
        self._require_writable()
        packer = Packer(
            self.paths, self.archive_id, self.catalog, self.spool, self.tier, self._clear_temporaries
        )
        report = packer.pack(
            Profile[(profile or self.settings.pack.profile).upper()],
            self.settings.mount.decoded_cache_bytes // 2,
            progress or NullProgress(),
            stop,
            only,
        )
        self._release_incoming()
        return report

    def _require_writable(self) -> None:
        if not self.writable:
            msg = f"{self.paths.root}: was opened to read only, because its disk cannot be written"
            raise CatalogError(msg)

    def _release_incoming(self) -> None:
        folder = StubFolder(self.paths.stubs, self.paths.incoming)
        releaser = Releaser(self.paths.incoming, folder, self.catalog, self.reconstructor.open)
        with locked(self.paths.pack_lock):
            try:
                releaser.run()
            except OSError as problem:
                logger.warning("packed files under incoming keep their bytes: %s", problem.strerror)

    def repack(
        self,
        profile: str,
        series: Collection[int] | None = None,
        *,
        progress: Progress | None = None,
        tell: Callable[[Outcome], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> RepackReport:
        """Move what is packed to another profile, where it gains; of these series only, where given.

        A pack holds the series of a study that were packed together, so others may move with them.
        """
        self._require_writable()
        repacker = Repacker(self.paths, self.archive_id, self.catalog, self.tier, self._source)
        chosen = None if series is None else self._packs_of(series)
        return repacker.repack(Profile[profile.upper()], chosen, progress or NullProgress(), tell, stop)

    def _packs_of(self, series: Collection[int]) -> set[ObjectKey]:
        parts = [part for number in series for part in self.catalog.parts(number)]
        return {key for part in parts for key in self._source.part(part.header_key, part.part_index).packs}

    def explain(self, instance: InstanceId) -> list[dict[str, object]]:
        """How the frames of an instance are stored, and why: a document for each stack; none while it waits.

        Raises:
            NotFoundError: the archive holds no such instance.
            TierError, FormatError: its packs cannot be had.
        """
        if not self.catalog.is_packed(instance):
            return []
        place = self.catalog.part_of(instance)
        entry = self._source.part(place.header_key, place.part_index).entries[place.row]
        # Asked afresh: what is remembered of a pack that was moved meanwhile tells of how it was.
        return explain(PackSource(self.tier, self.catalog.placed), entry.pieces)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check the archive; problems are listed, nothing is repaired."""
        verifier = Verifier(self.catalog, self.tier, self._source, self.reconstructor, self._journal)
        return verifier.run(deep=deep, progress=progress or NullProgress())

    def status(self) -> dict[str, object]:
        """Counts and sizes, as `dicomfs status --json` prints them: no patient attributes."""
        counts = self.catalog.counts()
        by_kind = dict.fromkeys(PackKind, 0)
        by_profile: Counter[str] = Counter()
        objects = 0
        for record in self.catalog.objects():
            kind = PackKind[record.key.split("/", 1)[0].upper()]
            by_kind[kind] += record.size
            if kind in FRAME_KINDS:
                by_profile[record.profile or "unknown"] += record.size
            objects += 1
        journal = [status.size for _, status in self.tier.list("journal")]
        stored = sum(by_kind.values()) + sum(journal)
        return {
            "patients": counts.patients,
            "studies": counts.studies,
            "series": counts.series,
            "instances": counts.instances,
            "logical_bytes": counts.logical_bytes,
            "stored_bytes": stored,
            "pixel_bytes": by_kind[PackKind.PIXEL] + by_kind[PackKind.BURNED],
            "pixel_bytes_by_profile": dict(sorted(by_profile.items())),
            "header_bytes": by_kind[PackKind.HEADER],
            "opaque_bytes": by_kind[PackKind.OPAQUE],
            "journal_bytes": sum(journal),
            "index_bytes": _folder_bytes(self.paths.index),
            "spool": {"instances": counts.spool_instances, "bytes": counts.spool_bytes},
            "tiers": {self.tier.name: {"objects": objects + len(journal), "bytes": stored}},
        }

    def usage(self) -> tuple[int, int]:
        """Size and free space of the local tier's file system, in bytes."""
        disk = shutil.disk_usage(self.paths.root)
        return disk.total, disk.free

    def _check_spool_index(self) -> None:
        """Rebuild the spool's index after a reboot: it is written without sync."""
        if self.catalog.spool_stale:
            with locked(self.paths.accept_lock):
                if self.catalog.spool_stale:
                    self._repair_spool()
                    with self.catalog.write_spool() as writer:
                        writer.mark_rebuilt()

    def _finish_acceptance(self) -> None:
        """Finish an acceptance that died: its instances may be listed, and those they replace shown, too."""
        mark = self.paths.accept_mark
        if not mark.exists():
            return
        # Who cannot have the lock sees an acceptance that is alive.
        with contextlib.suppress(CatalogBusy), locked(self.paths.accept_lock, wait=False):
            self._repair_spool()
            mark.unlink(missing_ok=True)

    def _clear_temporaries(self) -> None:
        if isinstance(self.tier, FolderTier):
            self.tier.discard_temporaries(0)

    def _repair_spool(self) -> None:
        rebuild_spool(self.catalog, self.spool, self._decisions())

    def _decisions(self) -> Iterator[VersionDecision]:
        for key in self._journal.list():
            try:
                entries = self._journal.read(key).entries
            except (FormatError, ObjectNotFound) as problem:
                # The catalog has what was decided before; `verify` lists the damage.
                logger.error("journal object passed over", extra={"reason": str(problem)})  # noqa: TRY400
                continue
            for entry in entries:
                if isinstance(entry, VersionsDecided):
                    yield from entry.decisions


def recover(root: Path, url: str, progress: Progress | None = None) -> RecoverReport:
    """Rebuild the archive at ``root`` from one tier.

    In place when ``root`` is the archive that the tier belongs to: its index is made anew.  Else ``root``
    must be new and becomes a copy: it gets the tier's objects, each compared with its name.

    Raises:
        UsageError: ``root`` is another archive or not empty, or the tier holds no archive.
        CatalogBusy: the archive at ``root`` is in use.
        TierError: the tier cannot be read or the local one written.
    """
    progress = progress or NullProgress()
    paths = ArchivePaths(root)
    source = open_tier("source", url)
    problems: list[str] = []
    own = _local_tier(paths, config.load(root))
    if _same_tier(source, own):
        archive_id, tier = _own_identity(paths, own), own
    elif paths.identity.exists():
        raise UsageError(
            f"{root} is another archive: name a new folder, or its own tier to rebuild its index"
        )
    else:
        archive_id = archive_of(source)
        paths.make()
        write_durably(paths.settings, config.TEMPLATE)
        tier = _local_tier(paths, config.Settings())
        problems = copy_objects(source, tier, paths.staging, progress)
        write_identity(paths, archive_id)
    with ExitStack() as held:
        if paths.index.exists():
            # A mount would go on with the deleted index and never show what is imported later.
            held.enter_context(Holder(paths.index)).require_alone()
        held.enter_context(locked(paths.pack_lock))
        held.enter_context(locked(paths.accept_lock))
        report = _rebuild_index(paths, archive_id, tier, progress)
    report.problems[:0] = problems
    return report


def _rebuild_index(paths: ArchivePaths, archive_id: bytes, tier: Tier, progress: Progress) -> RecoverReport:
    """Make a new index beside the old one, then put it in its place."""
    fresh, old = paths.root / "index.new", paths.root / "index.old"
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    with Catalog.create(fresh, archive_id) as catalog:
        report = recover_catalog(catalog, tier, Journal(tier, archive_id), Spool(paths.spool), progress)
        with catalog.write_spool() as writer:
            writer.mark_rebuilt()
    if paths.index.exists():
        paths.index.rename(old)
    fresh.rename(paths.index)
    sync_folder(paths.root)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _own_identity(paths: ArchivePaths, tier: Tier) -> bytes:
    """The identity of an archive that is rebuilt in place; its document is made again where it is lost."""
    try:
        return read_identity(paths)
    except UnsupportedVersion:
        raise
    except (UsageError, DamagedError):
        archive_id = archive_of(tier)
        write_identity(paths, archive_id)
        return archive_id


def _same_tier(one: Tier, other: Tier) -> bool:
    """Whether two tiers are one place."""
    return (
        isinstance(one, FolderTier)
        and isinstance(other, FolderTier)
        and one.path.resolve() == other.path.resolve()
    )


def _local_tier(paths: ArchivePaths, settings: config.Settings) -> Tier:
    configured = settings.tiers.get("local")
    return open_tier("local", configured.url if configured else paths.local_tier.resolve().as_uri())


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
