"""Checks around an environment before LMDB touches it: file system, PID namespace, boot.

LMDB's locks live in shared memory and name processes by pid: a network file system or a second PID
namespace would corrupt or lock out silently, so both are refused with advice.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path
from types import TracebackType

from dicomfs.errors import CatalogBusy, CatalogError

FOREIGN_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x65735546: "FUSE",
    0x01021997: "9p",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x73757245: "Coda",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
}
"""Magic numbers of statfs(2) that LMDB's shared mapping and locks cannot be trusted on."""

_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64-bit Linux; f_type comes first
_HOLDERS = "holders"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def file_system_magic(folder: Path) -> int:
    """f_type of the file system that holds ``folder``.  Raises CatalogError where it cannot be asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(folder), buffer) != 0:
        msg = f"catalog: {folder}: {os.strerror(ctypes.get_errno())}"
        raise CatalogError(msg)
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def require_local(folder: Path) -> None:
    """Raises CatalogError where ``folder`` is not on a local file system."""
    name = FOREIGN_FILE_SYSTEMS.get(file_system_magic(folder))
    if name is not None:
        msg = f"catalog: {folder} is on {name}; the index needs a local disk, only tiers may be elsewhere"
        raise CatalogError(msg)


def is_read_only(folder: Path) -> bool:
    """Whether nothing can be written there at all: the file system is mounted so."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def boot_id() -> str:
    """Identifies this run of the kernel (random(4)): nosync data written under another one is not trusted."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def pid_namespace() -> str:
    """The PID namespace of this process, as `pid:[number]`."""
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path: the link's text is the value


class Holder:
    """A shared lock on the file `holders`, held for as long as an index is open.

    The file keeps the PID namespace of those who hold it.  Whoever is alone (`alone` is true inside the
    constructor's window, see `first`) writes its own.  The lock belongs to the open file description.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first = False
        """True while nobody else can hold the index: until `share`."""
        self._file = -1
        if is_read_only(folder):
            return  # nobody can write there, so there is nothing to hold
        self._file = os.open(folder / _HOLDERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.first = True
        except BlockingIOError:
            pass
        except OSError as error:
            os.close(self._file)
            msg = f"catalog: {folder}: cannot lock: {error.strerror}"
            raise CatalogError(msg) from error

    def share(self) -> None:
        """Lets others in; from here on `first` is false.  Raises CatalogBusy for another PID namespace."""
        if self._file < 0:
            return
        mine = pid_namespace()
        if self.first:
            # In this order: on a full disk, a file that has its block keeps it.
            os.pwrite(self._file, mine.encode(), 0)
            os.ftruncate(self._file, len(mine))
            self.first = False
        fcntl.flock(self._file, fcntl.LOCK_SH)
        if self._replaced():
            msg = f"catalog: {self._folder} was rebuilt meanwhile; try again"
            raise CatalogBusy(msg)
        # Turning an exclusive lock into a shared one is not atomic: what the file says now is what counts.
        theirs = os.pread(self._file, 100, 0).decode("ascii", "replace")
        if theirs != mine:
            msg = (
                f"catalog: in use from another PID namespace ({theirs}, this one is {mine}); run all "
                "processes of an archive in one, for containers with `--pid=container:NAME` or `--pid=host`"
            )
            raise CatalogBusy(msg)

    def require_alone(self) -> None:
        """Raises CatalogBusy where another process (or this one, elsewhere) has the index open."""
        if not self.first:
            msg = f"catalog: {self._folder} is in use; unmount the archive and end its other commands first"
            raise CatalogBusy(msg)

    def _replaced(self) -> bool:
        try:
            return not os.path.samestat((self._folder / _HOLDERS).stat(), os.fstat(self._file))
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Releases the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Holder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
