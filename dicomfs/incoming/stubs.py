"""Stubs: files beneath ``incoming/`` whose bytes lie in the archive, and how they become whole again.

Owns reading a stub, rehydrating one before its first write, and its times.  The reference wins: what has one
is never read from its blocks.  Making stubs is ``release``'s.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from dicomfs import marks, system_calls
from dicomfs.marks import Reference, Sealer, State
from dicomfs.model import InstanceId
from dicomfs.reconstruct import InstanceReader

_STEP_BYTES = 4 << 20
_FIRST_LOOK_BYTES = 1 << 12
_LOOK_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class Stubs:
    """Reads and rehydrates stubs.  Any thread may call it."""

    def __init__(
        self,
        open_instance: Callable[[InstanceId], InstanceReader],
        sealer: Sealer | None,
        have_been: Callable[[], bool],
    ) -> None:
        """``have_been`` says whether there ever were stubs in this archive."""
        self._open, self._sealer, self._have_been = open_instance, sealer, have_been

    def reader(self, descriptor: int) -> InstanceReader | None:
        """The bytes of a stub; None for a whole file.

        Raises:
            OSError: EIO where the reference is not this archive's, or was lost.
            DicomfsError: the instance cannot be had.
        """
        status = os.fstat(descriptor)
        found = marks.read_reference(descriptor, status.st_size)
        if found is None:
            if status.st_size and self._lost_reference(descriptor):
                _log.error(
                    "inode %d holds zeros, as a stub that was restored without its attributes does: "
                    "remove it, its bytes are under patients/",
                    status.st_ino,
                )
                raise OSError(errno.EIO, "lost reference")
            return None
        return self._genuine(*found, number=status.st_ino)

    def _lost_reference(self, descriptor: int) -> bool:
        """Whether a file without reference may be what a backup without extended attributes made of a stub.

        It has nothing but zeros then, and nobody wrote these here.  An instance never has.
        """
        mark = marks.read_mark(descriptor)
        written = mark is not None and mark.state is State.WRITTEN
        return not written and only_zeros(descriptor) and self._have_been()

    def _genuine(self, value: bytes, reference: Reference, *, number: int) -> InstanceReader:
        reader = self._open(reference.instance)
        if (
            self._sealer is not None
            and reader.size == reference.size
            and self._sealer.is_genuine(value, reference, reader.sha256)
        ):
            return reader
        reader.close()
        _log.error("inode %d has a reference that is not this archive's", number)
        raise OSError(errno.EIO, "foreign reference")

    def rehydrate(self, descriptor: int) -> InstanceId | None:
        """Give a stub its bytes back; the instance they were, or None for a whole file.

        Bytes, fsync, times, reference removed, fsync: a crash before the end leaves a stub.

        Raises:
            OSError: the disk is full or fails; it is a stub still.
            DicomfsError: the instance cannot be had.
        """
        with system_calls.locked_apart(descriptor):
            reader = self.reader(descriptor)
            if reader is None:
                return None
            status = os.fstat(descriptor)
            found = marks.read_reference(descriptor, status.st_size)
            assert found is not None
            with contextlib.closing(reader):
                try:
                    _fill(descriptor, reader)
                except OSError:
                    with contextlib.suppress(OSError):
                        system_calls.punch(descriptor, status.st_size)
                    raise
            modified_ns = found[1].mtime_ns if found[1].ctime_ns else status.st_mtime_ns
            os.utime(descriptor, ns=(status.st_atime_ns, modified_ns))
            marks.remove_reference(descriptor)
            os.fsync(descriptor)
            return found[1].instance

    def touch(self, path: Path) -> None:
        """A client is about to change a file's attributes: a stub's own times are shown from now on.

        Raises OSError, DicomfsError.
        """
        status = path.stat()
        found = marks.read_reference(path, status.st_size)
        if found is None or not found[1].ctime_ns:
            return
        reader = self._genuine(*found, number=status.st_ino)
        sha256 = reader.sha256
        reader.close()
        assert self._sealer is not None
        os.utime(path, ns=(status.st_atime_ns, found[1].mtime_ns))
        reference = marks.touched(found[1])
        marks.set_reference(path, self._sealer.value(reference, sha256))


def _fill(descriptor: int, reader: InstanceReader) -> None:
    offset = 0
    while offset < reader.size:
        data = memoryview(reader.read(offset, _STEP_BYTES))
        while data:
            written = os.pwrite(descriptor, data, offset)
            offset += written
            data = data[written:]
    os.fsync(descriptor)


def only_zeros(descriptor: int) -> bool:
    """Whether a file holds no other byte; holes are passed over.  Raises OSError."""
    offset, length = 0, _FIRST_LOOK_BYTES
    while (offset := _next_data(descriptor, offset)) >= 0:
        data = os.pread(descriptor, length, offset)
        if data.strip(b"\0"):
            return False
        if not data:
            break
        offset, length = offset + len(data), _LOOK_BYTES
    return True


def _next_data(descriptor: int, offset: int) -> int:
    """Where data come next that lie on the disk, at ``offset`` or behind; -1 where there are none."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return -1
        raise
