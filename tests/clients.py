"""A client of ``incoming/`` without a kernel: the calls that FUSE would make, in their order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dicomfs.archive import Archive
from dicomfs.incoming.files import Files
from dicomfs.incoming.service import Incoming
from dicomfs.incoming.tree import Caller

ROOT = Caller(0, 0, 0o022)


class Client:
    """Opens, writes and closes files in the top folder."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.incoming: Incoming = archive.incoming(os.getuid(), os.getgid())
        self.files: Files = self.incoming.files
        self.top = self.incoming.inodes.root
        self._closed = False

    def close(self) -> None:
        """End the mount; again is harmless."""
        if not self._closed:
            self._closed = True
            self.incoming.close()

    def die(self) -> None:
        """The process ends without closing anything: its descriptors go, and so do its locks."""
        self._closed = True
        for handle in list(self.files._open):
            self.files.release(handle)
        self.incoming.inodes.close()
        desk = self.incoming._intake._desk
        if desk is not None and desk._lock is not None:
            os.close(desk._lock)

    def settle(self) -> None:
        """What a new mount does with what lies there, as if all of it were quiet."""
        for number, handle in list(self.incoming._untaken()):
            assert self.incoming._look(number, handle) is None, "not quiet"

    def number(self, name: str) -> int:
        return self.incoming.names.lookup(self.top, name.encode()).status.st_ino

    def create(self, name: str) -> int:
        """A handle of a new file."""
        return self.files.create(self.top, name.encode(), 0o644, os.O_WRONLY, ROOT)[0]

    def shut(self, handle: int) -> None:
        """What close(2) sends."""
        try:
            if self.files.is_changed(handle):
                self.incoming.flush(handle)
        finally:
            self.incoming.release(handle)

    def put(self, name: str, data: bytes) -> None:
        """Write a new file."""
        with self.opened(name, os.O_WRONLY | os.O_CREAT) as handle:
            self.files.write(handle, 0, data)

    @contextlib.contextmanager
    def opened(self, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """A handle of a file, closed at the end."""
        new = bool(flags & os.O_CREAT)
        handle = self.create(name) if new else self.files.open(self.number(name), flags)
        try:
            yield handle
        finally:
            self.shut(handle)

    def get(self, name: str) -> bytes:
        """All bytes of a file."""
        with self.opened(name) as handle:
            return self.files.read(handle, 0, 1 << 30)

    def beneath(self, name: str) -> Path:
        """The file that lies beneath."""
        return self.archive.paths.incoming / name
