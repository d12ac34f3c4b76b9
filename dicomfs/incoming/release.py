"""Gives back the blocks of files beneath ``incoming/`` whose bytes were packed: each becomes a stub.

Owns the order that loses nothing (docs/durability.md): compare, lock, compare again, reference, fsync, punch,
times.  Runs in the packer's process; the mount holds a shared lock on every file that is open, so that what
is read or written is left alone and offered again by the next run.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from dicomfs import marks, system_calls
from dicomfs.errors import DicomfsError
from dicomfs.incoming.waiting import WaitingList
from dicomfs.index.catalog import Catalog
from dicomfs.marks import Reference, Sealer
from dicomfs.model import InstanceId
from dicomfs.paths import create_private, sync_folder
from dicomfs.reconstruct import InstanceReader
from dicomfs.sources import digest_of

KEY_BYTES = 32
SETTLED_SECONDS = 0.1
"""Longer than any kernel's clock tick: a write after the comparison began then shows in ctime."""
_GONE = frozenset((errno.ESTALE, errno.ENOENT, errno.ELOOP, errno.ENXIO))

_log = logging.getLogger(__name__)


class StubFolder:
    """What the archive keeps about its stubs: the key, the sentinel, the list of files that wait."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._folder = folder
        self._key, self._sentinel = folder / "key", folder / "sentinel"
        self.waiting = WaitingList(folder, incoming)

    def prepare(self) -> None:
        """Make folder and key where there are none.  Raises OSError."""
        if self._key.exists():
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fresh = self._folder / f"key.{os.getpid()}.part"
        with create_private(fresh) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            # A link fails where another process was first; renaming would replace its key.
            os.link(fresh, self._key)
        fresh.unlink()
        sync_folder(self._folder)
        sync_folder(self._folder.parent)

    def sealer(self) -> Sealer | None:
        """What makes and checks references; None without a key."""
        try:
            return Sealer(self._key.read_bytes())
        except FileNotFoundError:
            return None

    def have_been(self) -> bool:
        """Whether there ever were stubs."""
        return self._sentinel.exists()

    def set_sentinel(self) -> None:
        """Note, before the first stub, that there are some.  Raises OSError."""
        if self._sentinel.exists():
            return
        create_private(self._sentinel).close()
        sync_folder(self._folder)


class Releaser:
    """Makes stubs.  One at a time per archive: the packer's lock orders the processes."""

    def __init__(
        self,
        incoming: Path,
        stubs: StubFolder,
        catalog: Catalog,
        open_instance: Callable[[InstanceId], InstanceReader],
    ) -> None:
        self._incoming, self._stubs, self._catalog, self._open = incoming, stubs, catalog, open_instance

    def run(self) -> int:
        """Release what is packed; how many files left the list.

        Raises:
            OSError: the list or the folder cannot be used.
        """
        if not self._incoming.is_dir() or (sealer := self._stubs.sealer()) is None:
            return 0
        top = os.open(self._incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._stubs.waiting.work_off(lambda handle: self._release(top, handle, sealer))
        finally:
            os.close(top)

    def _release(self, top: int, handle: bytes, sealer: Sealer) -> bool:
        """Release one file; False to be offered it again."""
        try:
            descriptor = system_calls.open_handle(top, handle, os.O_RDWR | os.O_NOFOLLOW)
        except OSError as problem:
            if problem.errno not in _GONE:
                _log.warning("a packed file under incoming cannot be opened: %s", problem.strerror)
            return problem.errno in _GONE
        try:
            return self._release_open(descriptor, sealer)
        except (OSError, DicomfsError) as problem:
            _log.warning("a packed file under incoming keeps its bytes: %s", problem)
            return False
        finally:
            os.close(descriptor)

    def _release_open(self, descriptor: int, sealer: Sealer) -> bool:
        status = os.fstat(descriptor)
        if status.st_nlink == 0:
            return True
        if marks.read_reference(descriptor, status.st_size) is not None:
            return self._punch_again(descriptor)
        instance = marks.accepted_as(descriptor)
        if instance is None:
            return True  # it was written since, and is listed again when it is accepted
        if not self._catalog.is_packed(instance):
            # What was forgotten is a file of its own from now on.
            return self._catalog.is_forgotten(instance)
        with contextlib.closing(self._open(instance)) as reader:
            size, sha256 = reader.size, reader.sha256
        status = _settled(descriptor)
        if status.st_size != size or digest_of(descriptor) != sha256:
            marks.remove_mark(descriptor)
            return True
        if not system_calls.lock_exclusive(descriptor) or _state(os.fstat(descriptor)) != _state(status):
            return False
        self._stubs.set_sentinel()
        reference = Reference(instance, size, status.st_mtime_ns, status.st_ctime_ns)
        # The mark first: both together do not fit into an inode of 256 bytes.
        marks.remove_mark(descriptor)
        marks.set_reference(descriptor, sealer.value(reference, sha256))
        os.fsync(descriptor)
        system_calls.punch(descriptor, size)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True

    def _punch_again(self, descriptor: int) -> bool:
        """A run that died may have left blocks."""
        if not system_calls.lock_exclusive(descriptor):
            return False
        status = os.fstat(descriptor)
        if marks.read_reference(descriptor, status.st_size) is not None and status.st_blocks:
            system_calls.punch(descriptor, status.st_size)
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True


def _settled(descriptor: int) -> os.stat_result:
    """The file's status once its last change is older than a tick of the clock."""
    while True:
        status = os.fstat(descriptor)
        age = time.time() - status.st_ctime_ns / 1e9
        if not 0 <= age < SETTLED_SECONDS:
            return status
        time.sleep(SETTLED_SECONDS - age)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
