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

from dicomfs import system_calls
from dicomfs.incoming import marks
from dicomfs.incoming.marks import Reference, Sealer
from dicomfs.model import InstanceId
from dicomfs.reconstruct import InstanceReader

_STEP_BYTES = 4 << 20
_LOOK_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class Stubs:
    """Reads and rehydrates stubs.  Any thread may call it."""

    def __init__(
        self, open_instance: Callable[[InstanceId], InstanceReader], sealer: Sealer | None, *, lost: bool
    ) -> None:
        """``lost`` says that this archive folder came back from a backup without extended attributes."""
        self._open, self._sealer, self._lost = open_instance, sealer, lost

    def reader(self, descriptor: int) -> InstanceReader | None:
        """The bytes of a stub; None for a whole file.

        Raises:
            OSError: EIO where the reference is not this archive's, or was lost.
            DicomfsError: the instance cannot be had.
        """
        status = os.fstat(descriptor)
        found = marks.read_reference(descriptor, status.st_size)
        if found is None:
            if self._lost and status.st_size and _only_zeros(descriptor):
                _log.error("inode %d holds zeros where a stub lost its reference", status.st_ino)
                raise OSError(errno.EIO, "lost reference")
            return None
        return self._genuine(*found, number=status.st_ino)

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


def _only_zeros(descriptor: int) -> bool:
    offset = 0
    while data := os.pread(descriptor, _LOOK_BYTES, offset):
        if data.strip(b"\0"):
            return False
        offset += len(data)
    return True
