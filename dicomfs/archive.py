"""An archive: the composition root and the public Python interface.

Wires settings, tier, catalog, spool and the use cases; contains no logic of its own beyond that.  Open one
with `Archive.open`, make one with `Archive.create`; both are context managers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dicomfs import config
from dicomfs.accept import Acceptor
from dicomfs.attached import attach, open_tiers
from dicomfs.codec.trial import Profile
from dicomfs.collecting import Collector
from dicomfs.copies import Copies
from dicomfs.crypto.keys import read_or_make_key_file
from dicomfs.encrypting import Encryption
from dicomfs.errors import (
    CatalogBusy,
    CatalogError,
    FormatError,
    ObjectNotFound,
    UsageError,
)
from dicomfs.explain import explain
from dicomfs.forgetting import Decisions
from dicomfs.format.journal import VersionDecision, VersionsDecided
from dicomfs.importer import Importer, ImportReport
from dicomfs.incoming.intake import Intake
from dicomfs.incoming.release import Releaser, StubFolder
from dicomfs.incoming.service import Incoming, prepare
from dicomfs.incoming.stubs import Stubs
from dicomfs.index.catalog import Catalog
from dicomfs.index.guards import is_read_only
from dicomfs.journal import Journal
from dicomfs.lifecycle_runs import Lifecycle
from dicomfs.locks import locked
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.nearest import NearestCopy
from dicomfs.packer import Packer, PackReport
from dicomfs.packing.repack import Outcome
from dicomfs.packing.together import Together
from dicomfs.packs import PackSource
from dicomfs.partial import PartialObjects
from dicomfs.paths import (
    ArchivePaths,
    new_archive_id,
    read_identity,
    write_durably,
    write_identity,
)
from dicomfs.pins import Pins
from dicomfs.progress import NullProgress, Progress
from dicomfs.purging import Purger
from dicomfs.recoding import PackCoder, Recoding
from dicomfs.reconstruct import Reconstructor
from dicomfs.recover import discard_forgotten, rebuild_spool
from dicomfs.repacker import Repacker, RepackReport
from dicomfs.residency import Residency
from dicomfs.scrubbing import Scrubber
from dicomfs.snapshots import Snapshots
from dicomfs.spool import Spool
from dicomfs.status import told_status
from dicomfs.tier_set import LOCAL
from dicomfs.tiering import Tiering
from dicomfs.tiers.folder import FolderTier
from dicomfs.use_notes import UseNotes
from dicomfs.verify import Verifier, VerifyReport
from dicomfs.withdrawing import Withdrawer

logger = logging.getLogger(__name__)


class Archive:
    """An open archive.  Reading is thread-safe; writing is ordered between processes by lock files."""

    def __init__(
        self, paths: ArchivePaths, archive_id: bytes, settings: config.Settings, catalog: Catalog
    ) -> None:
        self.paths, self.archive_id, self.settings, self.catalog = paths, archive_id, settings, catalog
        self.tiers = open_tiers(paths, settings, archive_id)
        self.tier = self.tiers.local
        self.copies = Copies(self.tiers, catalog, paths.fetched, paths.placing_lock)
        self.writable = True
        self.spool = Spool(paths.spool)
        self._journal = Journal(self.tier, archive_id)
        self._promotes = False
        partial = PartialObjects(paths.fetched, settings.mount.fetched_bytes)
        self._nearest = NearestCopy(
            self.tiers,
            catalog.find_object,
            self.copies,
            partial,
            self._may_promote,
            cold_wait_seconds=settings.mount.cold_wait_seconds,
            relatives=catalog.family,
        )
        self._source = PackSource(self._nearest, self._nearest.choose, self._nearest.doubt)
        self._packing = {name: tier.packing for name, tier in settings.tiers.items() if tier.packing}
        coder = PackCoder(paths, archive_id, catalog, self._nearest, self._source)
        self._recoding = Recoding(catalog, self.copies, coder, self._packing)
        self._use_notes = UseNotes(catalog)
        self.pins = Pins(catalog, self._journal)
        self.lifecycle = Lifecycle(catalog, self.tiers, self.tiering(), settings)
        self.residency = Residency(catalog, self.tiers, self._source, self._nearest, self.pins)
        self.reconstructor = Reconstructor(
            catalog, self.spool, self._source, settings.mount.decoded_cache_bytes
        )

    @classmethod
    def create(
        cls, root: Path, tiers: Mapping[str, str] | None = None, key_file: Path | None = None
    ) -> Archive:
        """Make a new archive in an empty or missing folder and open it.

        ``tiers`` gives URLs of further tiers by name; nothing is written there yet.  The key file is made
        where there is none.

        Raises:
            UsageError: the folder holds something or cannot be made, a URL or the key file makes no sense.
        """
        paths = ArchivePaths(root)
        keys = config.KeySettings(file=[] if key_file is None else str(key_file.absolute()))
        described = {name: config.TierSettings(url=url) for name, url in (tiers or {}).items()}
        text = config.template(described, keys)
        settings = config.parse(text)
        if key_file is not None:
            read_or_make_key_file(key_file)
        paths.make()
        archive_id = new_archive_id()
        for name, tier in described.items():
            attach(name, tier, archive_id)
        write_durably(paths.settings, text)
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
        archive._finish_decision()
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
        self._nearest.close()
        if self._source.note_used == self._use_notes.note:
            self._use_notes.stop()
        self.catalog.close()

    def promote_what_is_read(self) -> None:
        """From now on note what is read, and bring it to the local tier, if the settings let us."""
        self._promotes = self.settings.mount.promote
        self._source.note_used = self._use_notes.note
        self._use_notes.start()

    def _may_promote(self, size: int) -> bool:
        _, free = self.usage()
        if not self._promotes or free < size + 2 * self.settings.archive.minimum_free_bytes:
            return False
        return self.lifecycle.take_room(size)

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
        if keep_others:
            with contextlib.suppress(OSError):  # told of each file that is to be kept
                prepare(self.paths.incoming, os.getuid(), os.getgid())
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
        withdraw = Withdrawer(self.paths, self.catalog, self.spool).withdraw
        intake = Intake(self.spool, self.acceptor(), withdraw, reserve)
        stubs = Stubs(self.reconstructor.open, folder.sealer(), folder.have_been)
        quiet_seconds = self.settings.pack.quiet_seconds
        return Incoming(self.paths.incoming, intake, stubs, folder.waiting, quiet_seconds)

    def has_quiet_series(self) -> bool:
        """Whether there is something to pack for a mount."""
        return bool(self.quiet_series())

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
        report = self._packer().pack(
            Profile[(profile or self.settings.pack.profile).upper()],
            self.settings.mount.decoded_cache_bytes // 2,
            progress or NullProgress(),
            stop,
            only,
        )
        self._release_incoming()
        return report

    def _packer(self) -> Packer:
        return Packer(
            self.paths,
            self.archive_id,
            self.catalog,
            self.spool,
            self._nearest,
            self._clear_temporaries,
            self.tiers.names,
        )

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
        repacker = Repacker(
            self.paths, self.archive_id, self.catalog, self._nearest, self._source, self.copies, self._packing
        )
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
        return explain(PackSource(self._nearest, self._nearest.choose), entry.pieces)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check the archive; problems are listed, nothing is repaired."""
        verifier = Verifier(self.catalog, self.tiers, self._source, self.reconstructor, self._journal)
        return verifier.run(deep=deep, progress=progress or NullProgress())

    def status(self) -> dict[str, object]:
        """Counts and sizes, as `dicomfs status --json` prints them: no patient attributes."""
        return told_status(self.catalog, self.tier, self.paths.index) | {"tiers": self.tiering().status()}

    def tiering(self) -> Tiering:
        """What copies and evicts."""
        least = self.settings.lifecycle.minimum_copies
        return Tiering(self.catalog, self.tiers, self.copies, self._journal, least, self._recoding.place)

    def claim(self, tier: str) -> int:
        """Take a tier over, or a new one into use; returns the epoch.

        Raises:
            UsageError: there is no such tier, it is the archive's own folder, or another archive's.
            TierError: it cannot be asked or written.
        """
        if tier in self.settings.tiers and tier != LOCAL:
            attach(tier, self.settings.tiers[tier], self.archive_id)
        ownership = self.tiers.opened(tier).ownership
        if ownership is None:
            raise UsageError(f"tier {tier} is the archive's own folder")
        return ownership.claim().epoch

    @contextlib.contextmanager
    def applying_rules(self) -> Iterator[None]:
        """Be the one who applies the rules.  Raises CatalogBusy where another process does."""
        with locked(self.paths.rules_lock, wait=False, doing="applying the rules"):
            yield

    def collector(self) -> Collector:
        """What deletes what nobody needs."""
        lock, grace = self.paths.placing_lock, self.settings.gc
        return Collector(
            self.catalog, self.tiers, self.copies, self._journal, lock, grace, self.snapshots().tidy
        )

    def encryption(self) -> Encryption:
        """What encrypts tiers that were used without."""
        lock, folder = self.paths.placing_lock, self.paths.fetched
        return Encryption(self.tiers, self.catalog, self.copies.heal, lock, folder)

    def snapshots(self) -> Snapshots:
        """What makes recovery fast."""
        return Snapshots(
            self.archive_id,
            self.catalog,
            self.tiers,
            self.copies,
            self._source,
            self._journal,
            self.paths.fetched,
            self.settings.snapshots,
        )

    def decisions(self) -> Decisions:
        """What forgets and holds."""
        return Decisions(
            self.paths,
            self.catalog,
            self.spool,
            self._journal,
            self.tiers,
            self._source,
            self.collector(),
        )

    def purger(self) -> Purger:
        """What packs anew what others need of objects that hold something of what was forgotten."""
        packer = self._packer()
        profile, reorder_bytes = self.settings.pack.profile, self.settings.mount.decoded_cache_bytes // 2

        def pack_again(found: Together) -> tuple[set[ObjectKey], set[ObjectKey]]:
            return packer.purge(found, Profile[profile.upper()], reorder_bytes)

        return Purger(self.catalog, self.collector(), self.tiering(), pack_again)

    def scrubber(self) -> Scrubber:
        """What reads copies again and replaces bad ones."""
        return Scrubber(self.catalog, self.tiers, self.copies, self.archive_id)

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
                    discard_forgotten(self.catalog, self.spool)
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

    def _finish_decision(self) -> None:
        """Finish a decision that was journaled by a process that died."""
        if self.paths.decision_mark.exists():
            with contextlib.suppress(CatalogBusy), locked(self.paths.accept_lock, wait=False):
                self.decisions().finish()

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
