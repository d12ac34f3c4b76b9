"""The spool: bytes that were accepted and are not packed yet.

A folder is the truth, not an index: ``spool/<series>/<position>-<sha256>`` holds the raw bytes of one
instance with the source's modification time, so that a lost index costs a scan.  Files are written under
``spool/tmp/<worker>/`` and renamed into place; the worker's folder carries a lock, and what a dead worker
left there is removed.  Folders of workers are made under the lock of ``spool/tmp``, so that one without a
lock of its own is known to be a dead worker's.  Knows nothing of the catalog.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomfs.locks import locked, try_lock
from dicomfs.model import InstanceId
from dicomfs.paths import sync_folder
from dicomfs.system_calls import handle_of

_SERIES = re.compile(r"[0-9a-f]{10}")
_MOST_SYNCED = 1024
_ENTRY = re.compile(r"([0-9a-f]{6})-([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """One accepted file on disk."""

    id: InstanceId
    sha256: bytes
    path: Path


class Desk:
    """A worker's own temporary folder in the spool; locked while the worker lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        self.folder.mkdir(mode=0o700, parents=True)
        self._lock = try_lock(self.folder / "lock")
        self._numbers = itertools.count(1)

    def new_path(self) -> Path:
        """A fresh name in the folder.  Any thread may call it."""
        return self.folder / f"{next(self._numbers)}.part"

    def close(self) -> None:
        """Remove the folder with what is left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Spool:
    """The spool folder of one archive.  Safe for several processes: names are unique by construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._synced: dict[Path, bytes] = {}
        """Series folders whose names are known to be durable -> what tells them from later ones so named."""

    def path(self, instance: InstanceId, sha256: bytes) -> Path:
        """Where the bytes of an instance lie."""
        return self.folder / f"{instance.series:010x}" / f"{instance.position:06x}-{sha256.hex()}"

    def changed_s(self, series: int) -> float:
        """When a series last got or lost an instance here, in seconds since 1970; 0 where it has none."""
        try:
            return (self.folder / f"{series:010x}").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def desk(self) -> Desk:
        """A new temporary folder; also clears what dead workers left."""
        return open_desk(self.folder / "tmp")

    def clear_dead_desks(self) -> None:
        """Clear what dead workers left, without a desk of one's own.  Raises OSError."""
        if (self.folder / "tmp").is_dir():
            with locked(self.folder / "tmp" / "lock"):
                _clear_dead(self.folder / "tmp")

    def admit(self, files: Iterable[tuple[Path, InstanceId, bytes]]) -> None:
        """Move written and synced files into place and make their names durable.

        A file that is already in place is replaced by the same bytes: a repeated admission is harmless.
        """
        folders: set[Path] = set()
        for source, instance, sha256 in files:
            target = self.path(instance, sha256)
            if target.parent not in folders:
                target.parent.mkdir(mode=0o700, exist_ok=True)
                folders.add(target.parent)
            source.replace(target)
        for folder in folders:
            sync_folder(folder)
        self._sync_names(folders)

    def _sync_names(self, folders: Iterable[Path]) -> None:
        """Make the names of series folders durable, unless they are the very folders that were before."""
        found = {folder: _identity(folder) for folder in folders}
        if b"" not in found.values() and found.items() <= self._synced.items():
            return
        sync_folder(self.folder)
        if len(self._synced) > _MOST_SYNCED:
            self._synced.clear()
        self._synced |= found

    def files(self) -> Iterator[SpooledFile]:
        """Every accepted file, in order of series and position; strangers are passed over."""
        for folder in sorted(self.folder.iterdir()):
            if not _SERIES.fullmatch(folder.name) or not folder.is_dir():
                continue
            for entry in sorted(os.scandir(folder), key=lambda found: found.name):
                match = _ENTRY.fullmatch(entry.name)
                if match:
                    instance = InstanceId(int(folder.name, 16), int(match[1], 16))
                    yield SpooledFile(instance, bytes.fromhex(match[2]), Path(entry.path))

    def release(self, instances: Iterable[tuple[InstanceId, bytes]]) -> None:
        """Remove the raw bytes of packed instances; repeating it is harmless."""
        folders = set()
        for instance, sha256 in instances:
            path = self.path(instance, sha256)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        _remove_empty(folders)

    def tidy(self) -> None:
        """Remove empty folders, as an admission or a release that died leaves them."""
        _remove_empty(folder for folder in self.folder.iterdir() if _SERIES.fullmatch(folder.name))


def open_desk(folder: Path) -> Desk:
    """A new desk in a folder of desks, which is made if need be; clears what dead workers left there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with locked(folder / "lock"):
        _clear_dead(folder)
        return Desk(folder)


def _identity(folder: Path) -> bytes:
    """The folder's file handle, which no later folder shares; empty where there are none."""
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        return handle_of(descriptor)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            # Later slices of the series wait in it.
            continue


def _clear_dead(folder: Path) -> None:
    for other in list(folder.iterdir()):
        if other.is_dir():
            _remove_if_dead(other)


def _remove_if_dead(desk: Path) -> None:
    """Remove a worker's folder if nobody holds its lock; the caller holds that of all folders."""
    if not (desk / "lock").exists():
        shutil.rmtree(desk, ignore_errors=True)
        return
    descriptor = try_lock(desk / "lock")
    if descriptor is not None:
        shutil.rmtree(desk, ignore_errors=True)
        os.close(descriptor)
