"""Inodes of the folder beneath ``incoming/``: remembered by file handle, opened when they are needed.

Owns what the kernel knows of them (lookup counts) and how a number becomes a descriptor again.  A file
handle costs some bytes; a descriptor held for each inode would end at the limit of descriptors, some 20,000
files.  Where handles do not work (no CAP_DAC_READ_SEARCH, file systems without them) a descriptor is held
all the same.

Numbers are those of the file system beneath; the generation tells two inodes apart that had one number in
turn.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dicomfs import marks
from dicomfs.index.inodes import MARK
from dicomfs.marks import Reference
from dicomfs.system_calls import handle_of, open_handle

NAMING = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of a descriptor that only names an inode."""


class Known(NamedTuple):
    """What there is to tell of an inode."""

    status: os.stat_result
    generation: int
    stub: Reference | None = None
    """For a stub that nobody touched since: its times are those of the file that it stands for."""


class InodeTable:
    """The inodes of one folder that the kernel knows.  Any thread may call it."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError: the folder cannot be opened, or its file system's inode numbers do not fit."""
        self._top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self._top)
        self._device = status.st_dev
        self.root = status.st_ino
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self._handles: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._by_handle = self._handles_work()
        self._require_own(status)
        self.know(self._top, status)

    def _handles_work(self) -> bool:
        try:
            os.close(open_handle(self._top, handle_of(self._top), NAMING))
        except OSError:
            return False
        return True

    def _require_own(self, status: os.stat_result) -> None:
        if status.st_dev != self._device or not 1 < status.st_ino < MARK:
            raise OSError(errno.EXDEV, "another file system lies in the folder beneath incoming")

    def know(self, descriptor: int, status: os.stat_result | None = None) -> Known:
        """Remember an inode by any descriptor of it, once more: the kernel is told of it.  Raises OSError."""
        status = status or os.fstat(descriptor)
        self._require_own(status)
        number = status.st_ino
        handle = self.handle_of(descriptor)
        with self._lock:
            if not self._by_handle and number not in self._held:
                self._held[number] = os.dup(descriptor)
            self._handles[number] = handle
            self._counts[number] = self._counts.get(number, 0) + 1
        return Known(status, zlib.crc32(handle), _stub(descriptor, status))

    def describe(self, descriptor: int) -> Known:
        """What stat(2) shows of an inode that is known already.  Raises OSError."""
        status = os.fstat(descriptor)
        return Known(status, 0, _stub(descriptor, status))

    def forget(self, numbers: Iterable[tuple[int, int]]) -> None:
        """The kernel forgot inodes: (number, how many of the times that it was told of it)."""
        with self._lock:
            for number, times in numbers:
                left = self._counts.get(number, 0) - times
                if left > 0:
                    self._counts[number] = left
                    continue
                self._counts.pop(number, None)
                self._handles.pop(number, None)
                if number in self._held:
                    os.close(self._held.pop(number))

    @contextlib.contextmanager
    def outliving(self, folder: int, name: bytes, gone: Callable[[int], None]) -> Iterator[None]:
        """Around what takes a name away: an inode that loses its last one stays usable until it is forgotten.

        Somebody's working folder may be removed, and what a descriptor only names may be unlinked.  ``gone``
        is called then with such a descriptor.
        """
        try:
            descriptor = os.open(name, NAMING, dir_fd=folder)
        except FileNotFoundError:
            yield
            return
        try:
            yield
            status = os.fstat(descriptor)
            if status.st_nlink:
                return
            with self._lock:
                if status.st_ino in self._counts and status.st_ino not in self._held:
                    self._held[status.st_ino] = os.dup(descriptor)
            gone(descriptor)
        finally:
            os.close(descriptor)

    def handle_of(self, descriptor: int) -> bytes:
        """The file handle of any inode; empty where handles do not work.  Raises OSError."""
        return handle_of(descriptor) if self._by_handle else b""

    def handle(self, number: int) -> bytes:
        """The file handle of a known inode; empty where handles do not work.  Raises OSError ESTALE."""
        with self._lock:
            if number not in self._handles:
                raise OSError(errno.ESTALE, "unknown inode")
            return self._handles[number]

    def open(self, number: int, flags: int = NAMING) -> int:
        """A new descriptor of a known inode.  Raises OSError, ESTALE when it is gone."""
        handle = self.handle(number)
        with self._lock:
            held = self._held.get(number)
            if held is not None:
                if flags == NAMING:
                    return os.dup(held)
                return os.open(f"/proc/self/fd/{held}", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        return open_handle(self._top, handle, flags)

    def open_again(self, number: int, handle: bytes) -> int:
        """Open a file that the kernel may have forgotten, to read it.  Raises OSError, ESTALE where gone."""
        if handle:
            return open_handle(self._top, handle, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        return self.open(number, os.O_RDONLY | os.O_NONBLOCK)

    @contextlib.contextmanager
    def naming(self, number: int) -> Iterator[int]:
        """A descriptor that names a known inode, for a moment.  Raises OSError."""
        descriptor = self.open(number)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close what is held."""
        with self._lock:
            for descriptor in self._held.values():
                os.close(descriptor)
            self._held.clear()
            os.close(self._top)


def path_of(descriptor: int) -> Path:
    """A path to what a descriptor names, for calls that take no ``O_PATH`` descriptor."""
    return Path(f"/proc/self/fd/{descriptor}")


def _stub(descriptor: int, status: os.stat_result) -> Reference | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    found = marks.read_reference(path_of(descriptor), status.st_size)
    return found[1] if found and found[1].ctime_ns else None
