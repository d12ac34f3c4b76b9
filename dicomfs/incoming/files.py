"""Content of files under ``incoming/``: handles, reading, writing, truncating, syncing.

Owns the open files of a mount.  Every handle holds a shared lock of its open file description from open to
close, so that nobody releases the blocks of a file that is read or written.  A stub is read from the archive,
and is made whole before its first write; a mark of acceptance goes before the first byte changes.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dicomfs import marks, system_calls
from dicomfs.incoming.inodes import NAMING, InodeTable, Known
from dicomfs.incoming.stubs import Stubs
from dicomfs.incoming.tree import Caller, give_to
from dicomfs.model import InstanceId
from dicomfs.reconstruct import InstanceReader

HANDLE_MARK = 1 << 62
"""Set in the numbers of these handles, so that they are told from those of the archive's trees."""
_KEPT_FLAGS = os.O_SYNC | os.O_DSYNC
"""What a file is opened with beneath besides reading and writing: the kernel sends offsets, checks rights."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Settle = Callable[[int, int, InstanceId], None]
"""Note (inode number, descriptor, instance) for a file that holds an instance's bytes."""


@dataclass(slots=True)
class OpenFile:
    """An open file of a client."""

    number: int
    descriptor: int
    writes: bool
    reader: InstanceReader | None = None
    """Where a stub's bytes come from."""
    changed: bool = False
    """Whether something was written since the last flush."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a range.  Raises OSError, DicomfsError."""
        if self.reader is not None:
            if marks.read_reference(self.descriptor, os.fstat(self.descriptor).st_size) is not None:
                return self.reader.read(offset, length)
            self.reader = None  # somebody made it whole, and may have written since
        return _read(self.descriptor, offset, length)

    def close(self) -> None:
        """Give back what it holds, the lock last."""
        if self.reader is not None:
            self.reader.close()
        os.close(self.descriptor)


class Files:
    """The open files of one mount.  Any thread may call it, for one handle several at once."""

    def __init__(
        self, inodes: InodeTable, stubs: Stubs, settle: Settle, give_up: Callable[[int], None]
    ) -> None:
        """``give_up`` is called with a descriptor before its file's bytes change, or go."""
        self._inodes, self._stubs, self._settle, self._give_up = inodes, stubs, settle, give_up
        self._handles = itertools.count(HANDLE_MARK + 1)
        self._open: dict[int, OpenFile] = {}
        self._lock = threading.Lock()

    def open(self, number: int, flags: int) -> int:
        """Open a file; its handle."""
        return self._add(self._opened(number, flags))

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[int, Known]:
        """Make a file, or without ``O_EXCL`` take one of that name, and open it."""
        with self._inodes.naming(parent) as folder:
            try:
                made = os.open(name, _NEW, 0o600, dir_fd=folder)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                return self._open_there(folder, name, flags)
            try:
                give_to(made, os.fstat(folder), mode, caller)
                known = self._inodes.know(made)
                system_calls.lock_shared(made)
            except OSError:
                os.close(made)
                os.unlink(name, dir_fd=folder)
                raise
        return self._add(OpenFile(known.status.st_ino, made, writes=True)), known

    def _open_there(self, folder: int, name: bytes, flags: int) -> tuple[int, Known]:
        naming = os.open(name, NAMING, dir_fd=folder)
        try:
            known = self._inodes.know(naming)
        finally:
            os.close(naming)
        try:
            return self.open(known.status.st_ino, flags), known
        except OSError:
            self._inodes.forget([(known.status.st_ino, 1)])
            raise

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Bytes of a range, short only at the end of the file."""
        return self._open[handle].read(offset, length)

    def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write at an offset; how many bytes were written, fewer than given when the disk became full."""
        opened = self._open[handle]
        self._begin_change(opened)
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(opened.descriptor, view[done:], offset + done)
            except OSError:
                if done:
                    break
                raise
        return done

    def is_changed(self, handle: int) -> bool:
        """Whether something was written since the last flush; never blocks."""
        return self._open[handle].changed

    def take_changed(self, handle: int) -> OpenFile:
        """The open file, from now on without unflushed changes."""
        opened = self._open[handle]
        opened.changed = False
        return opened

    def are_changed(self, number: int) -> bool:
        """Whether a handle of an inode has unflushed changes."""
        with self._lock:
            return any(opened.changed for opened in self._open.values() if opened.number == number)

    def are_writing(self, number: int) -> bool:
        """Whether an inode is open for writing."""
        with self._lock:
            return any(opened.writes for opened in self._open.values() if opened.number == number)

    def truncate(self, number: int, handle: int | None, size: int) -> None:
        """Change the length of a file."""
        if handle is not None:
            opened = self._open[handle]
            self._begin_change(opened)
            os.ftruncate(opened.descriptor, size)
            return
        own = self.open(number, os.O_WRONLY | (0 if size else os.O_TRUNC))
        try:
            self.truncate(number, own, size)
        finally:
            self.release(own)

    def sync(self, handle: int, *, data_only: bool) -> None:
        """Make the bytes durable."""
        descriptor = self._open[handle].descriptor
        (os.fdatasync if data_only else os.fsync)(descriptor)

    def release(self, handle: int) -> OpenFile | None:
        """Close a file; what was open, for a handle that is known."""
        with self._lock:
            opened = self._open.pop(handle, None)
        if opened is not None:
            opened.close()
        return opened

    def close(self) -> None:
        """Close what is open."""
        for handle in list(self._open):
            self.release(handle)

    def _opened(self, number: int, flags: int) -> OpenFile:
        """Open what is a regular file, with its lock; whole if it is to be written."""
        with self._inodes.naming(number) as naming:
            if not stat.S_ISREG(os.fstat(naming).st_mode):
                # The kernel opens FIFOs and devices by itself; one of them here would wait or act.
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        writes = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        how = os.O_RDWR if writes else os.O_RDONLY
        opened = OpenFile(number, self._inodes.open(number, how | flags & _KEPT_FLAGS), writes)
        try:
            system_calls.lock_shared(opened.descriptor)
            if flags & os.O_TRUNC:
                self._empty(opened)
            elif writes:
                self._make_whole(opened)
            else:
                opened.reader = self._stubs.reader(opened.descriptor)
        except BaseException:
            opened.close()
            raise
        return opened

    def _empty(self, opened: OpenFile) -> None:
        """Remove all bytes, of a stub too: first its length, which makes the reference void."""
        opened.changed = True
        self._give_up(opened.descriptor)
        marks.remove_mark(opened.descriptor)
        os.ftruncate(opened.descriptor, 0)
        marks.remove_reference(opened.descriptor)
        # Not before: both together do not fit into an inode of 256 bytes.
        marks.set_written(opened.descriptor)

    def _begin_change(self, opened: OpenFile) -> None:
        """Change the mark of acceptance: what follows was not accepted.  Raises OSError."""
        if not opened.changed:
            opened.changed = True
            self._give_up(opened.descriptor)
            marks.set_written(opened.descriptor)

    def _make_whole(self, opened: OpenFile) -> None:
        instance = self._stubs.rehydrate(opened.descriptor)
        if instance is not None:
            self._settle(opened.number, opened.descriptor, instance)

    def _add(self, opened: OpenFile) -> int:
        handle = next(self._handles)
        with self._lock:
            self._open[handle] = opened
        return handle


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while data and len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
