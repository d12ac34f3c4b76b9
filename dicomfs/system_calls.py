"""Linux system calls that Python's ``os`` lacks, with their errors as OSError.

Owns the calling conventions (ctypes) and nothing else: file handles, renames with flags, owners and times of
descriptors that only name a file, locks of open file descriptions, holes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_HANDLE_BYTES: Final = 128
"""Longest file handle (``MAX_HANDLE_SZ``)."""
_UTIME_OMIT: Final = (1 << 30) - 2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_LARGEST_BLOCK: Final = 1 << 20
_FICLONE: Final = 0x40049409
_APART: Final = 1 << 62
"""A byte beyond any file: locks of whole files end before it."""
_FLOCK = struct.Struct("@hhqqi")
_BILLION: Final = 1_000_000_000


class _Handle(ctypes.Structure):
    """``struct file_handle`` of open_by_handle_at(2)."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _HANDLE_BYTES),
    )


class _Times(ctypes.Structure):
    """Two ``struct timespec``: access and modification."""

    _fields_ = (
        ("access_s", ctypes.c_long),
        ("access_ns", ctypes.c_long),
        ("modified_s", ctypes.c_long),
        ("modified_ns", ctypes.c_long),
    )


_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_LIBC.fchownat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int)


def handle_of(descriptor: int) -> bytes:
    """The file handle of an open (``O_PATH``) descriptor: names its inode as long as that exists.

    Raises:
        OSError: EOPNOTSUPP on file systems without handles.
    """
    handle = _Handle(_HANDLE_BYTES, 0)
    mount = ctypes.c_int()
    _check(
        _LIBC.name_to_handle_at(descriptor, b"", ctypes.byref(handle), ctypes.byref(mount), _AT_EMPTY_PATH)
    )
    return struct.pack("@i", handle.handle_type) + bytes(handle.f_handle[: handle.handle_bytes])


def open_handle(mount: int, handle: bytes, flags: int) -> int:
    """Open an inode by its handle; ``mount`` is any real descriptor on its file system.

    Raises:
        OSError: ESTALE when the inode is gone, EPERM without CAP_DAC_READ_SEARCH.
    """
    (kind,) = struct.unpack_from("@i", handle)
    body = handle[4:]
    wanted = _Handle(len(body), kind)
    ctypes.memmove(wanted.f_handle, body, len(body))
    return _check(_LIBC.open_by_handle_at(mount, ctypes.byref(wanted), flags | os.O_CLOEXEC))


def rename(old_folder: int, old: bytes, new_folder: int, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    _check(_LIBC.renameat2(old_folder, old, new_folder, new, flags))


def set_owner(descriptor: int, uid: int, gid: int) -> None:
    """Change owner and group of what a descriptor names, also of a symbolic link; -1 leaves one as it is."""
    _check(_LIBC.fchownat(descriptor, b"", uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, _AT_EMPTY_PATH))


def set_times(descriptor: int, accessed_ns: int | None, modified_ns: int | None) -> None:
    """Change times of what a descriptor names, nanoseconds since 1970; None leaves one as it is."""
    times = _Times(*_timespec(accessed_ns), *_timespec(modified_ns))
    _check(_LIBC.utimensat(descriptor, b"", ctypes.byref(times), _AT_EMPTY_PATH))


def _timespec(moment_ns: int | None) -> tuple[int, int]:
    return (0, _UTIME_OMIT) if moment_ns is None else divmod(moment_ns, _BILLION)


def punch(descriptor: int, size: int) -> None:
    """Give back all blocks of a file of ``size`` bytes; it keeps its length and reads as zeros."""
    # A hole that ends inside the last block would leave that block allocated.
    past = (size | _LARGEST_BLOCK - 1) + 1
    _check(_LIBC.fallocate(descriptor, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, 0, past))


def clone(source: int, target: int) -> bool:
    """Let an empty file share all blocks of another; False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as problem:
        if problem.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}:
            return False
        raise
    return True


def lock_shared(descriptor: int) -> None:
    """Wait for and take a shared lock of a whole file; it belongs to the open file description."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, _APART, 0))


def lock_exclusive(descriptor: int) -> bool:
    """Take the exclusive lock of a whole file now; False when another open file description has one."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, _APART, 0))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked_apart(descriptor: int) -> Iterator[None]:
    """Hold a lock of a file that has nothing to do with those of the whole file; waits for it."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _APART, 1, 0))
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _APART, 1, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
