"""Serves an archive at a mount point until it is unmounted: session, signals, threads, and their end.

Owns the lifetime; what is shown is ``vfs``, how it is answered ``fuse_adapter``.  This process never forks
once it has mounted: a child would keep ``/dev/fuse`` open, and a crash would hang every reader instead of
giving it an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pyfuse3
import trio

from dicomfs import mounts
from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull, UsageError
from dicomfs.fuse_adapter import ArchiveOperations, PyfuseCache
from dicomfs.fuse_incoming import IncomingOperations
from dicomfs.fuse_mount import MountOperations
from dicomfs.incoming.service import Incoming
from dicomfs.index.records import Counts
from dicomfs.invalidation import ChangeFeed, ChangeWatcher
from dicomfs.low_priority import LowPriorityWork
from dicomfs.mount_options import MountOptions
from dicomfs.offload import Offload, Work
from dicomfs.readahead import ReadAhead
from dicomfs.vfs import Tree
from dicomfs.vfs_types import InstanceSource, ResidencyControl, TreeCatalog

GRACE_SECONDS = 10.0
"""How long requests may go on after the mount was told to end; then they fail."""
READ_AHEAD_KIB = 1024
"""What the kernel asks for at once; beyond 1 MiB nothing is gained, its own default is 128 KiB."""

_MNT_FORCE, _MNT_DETACH = 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)

_log = logging.getLogger(__name__)

__all__ = ["GRACE_SECONDS", "MountOptions", "MountedArchive", "serve", "serve_archive"]


class MountedCatalog(TreeCatalog, ChangeFeed, Protocol):
    """What a mount needs of the catalog."""

    def counts(self) -> Counts:
        """What the archive holds."""


class MountedArchive(Protocol):
    """What a mount needs of an archive (dicomfs.archive.Archive)."""

    @property
    def catalog(self) -> MountedCatalog:
        """The names."""

    @property
    def reconstructor(self) -> InstanceSource:
        """The bytes."""

    def status(self) -> Mapping[str, object]:
        """Counts, without attributes of patients."""

    def usage(self) -> tuple[int, int]:
        """Total and free bytes of the local tier's file system."""


def serve(archive_path: Path, mountpoint: Path, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount an archive and serve it until it is unmounted or SIGTERM or SIGINT arrives.

    ``ready`` is called once, in the main thread, when requests are answered.  Call from the main thread.

    Raises:
        UsageError: it cannot be mounted there.
        DicomfsError: the archive cannot be opened.
    """
    mountpoint = _usable(mountpoint)
    _require_apart(archive_path.resolve(), mountpoint)
    with _opened(archive_path) as archive:
        if not archive.writable:
            _log.warning("the archive cannot be written: mounted to read only")
            options = replace(options, read_only=True)
        else:
            archive.promote_what_is_read()
        with _incoming(archive, options) as incoming:
            source = str(archive_path.absolute())
            serve_archive(archive, source, mountpoint, options, ready, incoming, archive.residency)


def _opened(path: Path) -> Archive:
    """The archive, to read only where its disk does not let us write.  Raises DicomfsError."""
    try:
        return Archive.open(path)
    except CatalogFull as problem:
        _log.warning("%s", problem)
        return Archive.open_to_read(path)


@contextlib.contextmanager
def _incoming(archive: Archive, options: MountOptions) -> Iterator[Incoming | None]:
    """The writable half; None where there is none yet and it cannot be made, as on a full disk.

    Raises:
        UsageError: the folder beneath cannot be used.
    """
    try:
        incoming = archive.incoming(options.uid, options.gid)
    except OSError as problem:
        full = not archive.writable or problem.errno in mounts.NOT_WRITABLE
        if full and not _holds_anything(archive.paths.incoming):
            _log.warning("mounted without incoming: %s", problem.strerror)
            yield None
            return
        raise UsageError(f"cannot serve {archive.paths.incoming}: {problem.strerror}") from problem
    with contextlib.closing(incoming), _low_priority(archive, options):
        if archive.writable:
            incoming.start()
        yield incoming


def _holds_anything(folder: Path) -> bool:
    """Whether there is something in a folder, if there is a folder."""
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _low_priority(archive: Archive, options: MountOptions) -> Iterator[None]:
    """Meanwhile quiet series are packed and rules applied, unless the settings or the options say no."""
    settings, works = archive.settings, []
    if not options.read_only and settings.pack.background:
        command, pause_seconds = ["pack", "--quiet-only"], float(settings.pack.quiet_seconds)
        due, pressed = archive.has_quiet_series, archive.is_pressed
        works.append(LowPriorityWork("packing", due, _program(archive, command), pause_seconds, pressed))
    if not options.read_only and settings.lifecycle.background:
        due = archive.lifecycle.is_due
        works.append(LowPriorityWork("applying rules", due, _program(archive, ["tier", "apply"]), 0.0))
    for work in works:
        work.start()
    try:
        yield
    finally:
        for work in works:
            work.stop()


def _program(archive: Archive, command: list[str]) -> list[str]:
    program = [sys.executable, "-m", "dicomfs", "-a", str(archive.paths.root.absolute()), *command]
    return [*program, "--background-of", str(os.getpid())]


def serve_archive(
    archive: MountedArchive,
    source: str,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None],
    incoming: Incoming | None = None,
    residency: ResidencyControl | None = None,
) -> None:
    """The same for an open archive; ``source`` is what mountinfo shows."""
    with contextlib.suppress(OSError, ValueError):  # no standard error to write to
        faulthandler.register(signal.SIGUSR1)
    _allow_open_files()
    trio.run(_serve, archive, source, mountpoint, options, ready, incoming, residency)


def _usable(mountpoint: Path) -> Path:
    """The mount point's absolute path.  Raises UsageError where nothing can be mounted."""
    try:
        resolved = mountpoint.resolve(strict=True)
        if resolved.is_dir():
            return resolved
    except OSError as problem:
        raise UsageError(f"cannot mount at {mountpoint}: {problem.strerror}") from None
    raise UsageError(f"cannot mount at {mountpoint}: not a folder")


def _require_apart(archive: Path, mountpoint: Path) -> None:
    """Raise UsageError where the mount would hide the archive, or lie in it."""
    if archive.is_relative_to(mountpoint):
        raise UsageError(f"cannot mount at {mountpoint}: it would hide the archive {archive}")
    if mountpoint.is_relative_to(archive):
        raise UsageError(f"cannot mount at {mountpoint}: it lies in the archive {archive}")


def _allow_open_files() -> None:
    """Take all descriptors this process may have: each open file that is not packed yet needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(
    archive: MountedArchive,
    source: str,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None],
    incoming: Incoming | None,
    residency: ResidencyControl | None,
) -> None:
    tree = Tree(archive.catalog, archive.reconstructor, archive.status)
    read_ahead = ReadAhead(tree)
    offload, counts = Offload(), archive.catalog.counts
    operations = ArchiveOperations(tree, options, offload, read_ahead, archive.usage, counts, residency)
    both = MountOperations(operations, IncomingOperations(incoming, offload) if incoming else None)
    watcher = ChangeWatcher(archive.catalog, PyfuseCache())
    with (
        # Before the session: a signal in between would leave a mount without a daemon.
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        _session(both, source, mountpoint, options),
        contextlib.closing(operations),
    ):
        mount = mounts.find(mountpoint)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_greet, operations, watcher, mount, ready)
                nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
                for _ in range(offload.limit(Work.AHEAD)):
                    nursery.start_soon(operations.serve_wishes)
                await pyfuse3.main()
                nursery.cancel_scope.cancel()
        finally:
            read_ahead.stop()
            # The session must outlive the watcher: its drops use it.
            if not watcher.stop(GRACE_SECONDS):
                _abort(mount)
                watcher.stop(threading.TIMEOUT_MAX)


@contextlib.contextmanager
def _session(
    operations: MountOperations, source: str, mountpoint: Path, options: MountOptions
) -> Iterator[None]:
    """A mounted session; unmounts at the end, also when it was unmounted already."""
    try:
        pyfuse3.init(operations, str(mountpoint), session_options(source, options))
    except RuntimeError as problem:
        raise UsageError(f"cannot mount at {mountpoint}: {problem}") from None
    _log.info("mounted")
    try:
        yield
    finally:
        pyfuse3.close(unmount=True)
        _log.info("unmounted")


def session_options(source: str, options: MountOptions) -> set[str]:
    """Options for libfuse.  Its parser takes a backslash as an escape, and pyfuse3 passes ASCII only."""
    name = mounts.source_name(Path(source)).replace("\\", "\\\\").replace(",", "\\,")
    result = {"default_permissions", "subtype=dicomfs", f"fsname={name}"}
    if options.allow_other:
        result.add("allow_other")
    if options.read_only:
        result.add("ro")
    return result


async def _greet(
    operations: ArchiveOperations, watcher: ChangeWatcher, mount: mounts.Mount, ready: Callable[[], None]
) -> None:
    await operations.started.wait()
    watcher.start()
    _raise_read_ahead(mount)
    ready()


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """End the session at the first signal; what still runs after the grace is cancelled and fails."""
    number = await anext(signals)
    _log.info("ending on %s", signal.Signals(number).name)
    scope.deadline = trio.current_time() + GRACE_SECONDS
    pyfuse3.terminate()


def _raise_read_ahead(mount: mounts.Mount) -> None:
    """Let the kernel ask for more at once; needs root, and nothing depends on it.

    The file is in sysfs: no request reaches the mount, as ``stat`` of the mount point would.
    """
    try:
        Path(f"/sys/class/bdi/0:{mount.minor}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except OSError as problem:
        _log.debug("read-ahead stays as it is: %s", problem.strerror)


def _abort(mount: mounts.Mount) -> None:
    """Fail every request that waits, so that a drop waiting for one of them returns.

    A forced unmount aborts the connection (umount2(2)); who is not root may do it through fusectl only.
    """
    if _LIBC.umount2(os.fsencode(mount.mountpoint), _MNT_FORCE | _MNT_DETACH) == 0:
        return
    try:
        (mounts.CONNECTIONS / str(mount.minor) / "abort").write_text("1")
    except OSError as problem:
        _log.critical("requests hang and the connection cannot be aborted: %s", problem.strerror)
        os._exit(1)
