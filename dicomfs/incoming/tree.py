"""Names, attributes and extended attributes under ``incoming/``, carried out on the folder beneath.

Owns no POSIX of its own: the kernel checked the caller's rights against the attributes shown here, the file
system beneath does the rest.  What is made belongs to its caller.  Errors are OSError with the number that
the caller is to see.  Content of files is ``files``'.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dicomfs import system_calls
from dicomfs.incoming.inodes import NAMING, InodeTable, Known, path_of

OWN_NAMESPACES = ("user.dicomfs.", "user.dicom.")
"""Extended attributes that are ours: never set by a client, never listed."""
_PASSED = ("user.", "trusted.")


class Caller(NamedTuple):
    """Who asks: effective user and group, and the mask for what is made."""

    uid: int
    gid: int
    umask: int


class Change(NamedTuple):
    """What setattr(2)'s relatives change; None leaves a thing as it is.  Times are nanoseconds since 1970."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    accessed_ns: int | None = None
    modified_ns: int | None = None


class Names:
    """The names beneath ``incoming/``.  Any thread may call it."""

    def __init__(
        self, inodes: InodeTable, touch: Callable[[Path], None], gone: Callable[[Path], None]
    ) -> None:
        """Called with a path to a regular file: before its attributes change; when no name is left."""
        self._inodes = inodes
        self._touching, self._gone = _for_files(touch), _for_files(gone)

    # -- names ------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Known:
        """What a name means."""
        with self._inodes.naming(parent) as folder:
            return self._know(folder, name)

    def attributes(self, number: int) -> Known:
        """What stat(2) shows."""
        with self._inodes.naming(number) as descriptor:
            return self._inodes.describe(descriptor)

    def names_in(self, number: int) -> list[bytes]:
        """The names in a folder."""
        with self._inodes.naming(number) as folder:
            listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                return [os.fsencode(name) for name in os.listdir(listed)]  # noqa: PTH208 - a descriptor
            finally:
                os.close(listed)

    def entries(self, number: int, names: Sequence[bytes]) -> list[Known | None]:
        """What names in a folder mean, each counted as a lookup; None for one that is gone."""
        found: list[Known | None] = []
        with self._inodes.naming(number) as folder:
            for name in names:
                try:
                    found.append(self._know(folder, name))
                except FileNotFoundError:
                    found.append(None)
        return found

    def make_folder(self, parent: int, name: bytes, mode: int, caller: Caller) -> Known:
        """mkdir(2)."""
        with self._inodes.naming(parent) as folder:
            os.mkdir(name, 0o700, dir_fd=folder)
            try:
                return self._own(folder, name, mode, caller)
            except OSError:
                os.rmdir(name, dir_fd=folder)
                raise

    def make_node(self, parent: int, name: bytes, mode: int, device: int, caller: Caller) -> Known:
        """mknod(2): an empty file, a FIFO, a socket, a device."""
        with self._inodes.naming(parent) as folder:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, device, dir_fd=folder)
            try:
                return self._own(folder, name, mode, caller)
            except OSError:
                os.unlink(name, dir_fd=folder)
                raise

    def make_symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Known:
        """symlink(2)."""
        with self._inodes.naming(parent) as folder:
            os.symlink(target, name, dir_fd=folder)
            try:
                return self._own(folder, name, None, caller)
            except OSError:
                os.unlink(name, dir_fd=folder)
                raise

    def link(self, number: int, parent: int, name: bytes) -> Known:
        """linkat(2)."""
        with self._inodes.naming(number) as source, self._inodes.naming(parent) as folder:
            self._touching(source)
            os.link(f"/proc/self/fd/{source}", name, dst_dir_fd=folder, follow_symlinks=True)
            return self._inodes.know(source)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name."""
        with self._inodes.naming(parent) as folder, self._inodes.outliving(folder, name, self._gone):
            os.unlink(name, dir_fd=folder)

    def remove_folder(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        with self._inodes.naming(parent) as folder, self._inodes.outliving(folder, name, self._gone):
            os.rmdir(name, dir_fd=folder)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """renameat2(2)."""
        with (
            self._inodes.naming(parent) as old,
            self._inodes.naming(new_parent) as new,
            self._inodes.outliving(new, new_name, self._gone),
        ):
            system_calls.rename(old, name, new, new_name, flags)

    def read_link(self, number: int) -> bytes:
        """readlink(2)."""
        with self._inodes.naming(number) as descriptor:
            return os.fsencode(os.readlink("", dir_fd=descriptor))

    def sync_folder(self, number: int) -> None:
        """Make the names in a folder durable."""
        with self._inodes.naming(number) as folder:
            synced = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fsync(synced)
            finally:
                os.close(synced)

    def _know(self, folder: int, name: bytes) -> Known:
        descriptor = os.open(name, NAMING, dir_fd=folder)
        try:
            return self._inodes.know(descriptor)
        finally:
            os.close(descriptor)

    def _own(self, folder: int, name: bytes, mode: int | None, caller: Caller) -> Known:
        """Give what was just made to its caller, with the mode that POSIX wants; None for a link."""
        descriptor = os.open(name, NAMING, dir_fd=folder)
        try:
            give_to(descriptor, os.fstat(folder), mode, caller)
            return self._inodes.know(descriptor)
        finally:
            os.close(descriptor)

    # -- attributes -------------------------------------------------------------------------------------

    def change(self, number: int, change: Change) -> Known:
        """chmod, chown, utimensat; nothing at all still counts as a change of the inode."""
        with self._inodes.naming(number) as descriptor:
            self._touching(descriptor)
            if change.uid is not None or change.gid is not None or change == Change():
                uid, gid = (-1 if who is None else who for who in (change.uid, change.gid))
                system_calls.set_owner(descriptor, uid, gid)
            if change.mode is not None:
                path_of(descriptor).chmod(stat.S_IMODE(change.mode))
            if change.accessed_ns is not None or change.modified_ns is not None:
                system_calls.set_times(descriptor, change.accessed_ns, change.modified_ns)
            return self._inodes.describe(descriptor)

    def get_attribute(self, number: int, name: str) -> bytes:
        """getxattr(2)."""
        _require_passed(name, errno.ENODATA)
        with self._inodes.naming(number) as descriptor:
            return os.getxattr(path_of(descriptor), name)

    def set_attribute(self, number: int, name: str, value: bytes) -> None:
        """setxattr(2)."""
        _require_passed(name, errno.EOPNOTSUPP)
        with self._inodes.naming(number) as descriptor:
            self._touching(descriptor)
            os.setxattr(path_of(descriptor), name, value)

    def remove_attribute(self, number: int, name: str) -> None:
        """removexattr(2)."""
        _require_passed(name, errno.ENODATA)
        with self._inodes.naming(number) as descriptor:
            self._touching(descriptor)
            os.removexattr(path_of(descriptor), name)

    def list_attributes(self, number: int) -> list[bytes]:
        """listxattr(2), without ours."""
        with self._inodes.naming(number) as descriptor:
            names = os.listxattr(path_of(descriptor))
        return [os.fsencode(name) for name in names if name.startswith(_PASSED) and not is_own(name)]


def _for_files(call: Callable[[Path], None]) -> Callable[[int], None]:
    """For descriptors that may name anything."""

    def called(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            call(path_of(descriptor))

    return called


def is_own(name: str) -> bool:
    """Whether an extended attribute is ours."""
    return name.startswith(OWN_NAMESPACES)


def give_to(descriptor: int, parent: os.stat_result, mode: int | None, caller: Caller) -> None:
    """Set owner, group and mode of something new as the kernel does for a local file system.

    A folder with the set-group-ID bit passes its group on, and the bit to folders (stat(2), inode(7)).
    """
    inherits = bool(parent.st_mode & stat.S_ISGID)
    system_calls.set_owner(descriptor, caller.uid, -1 if inherits else caller.gid)
    if mode is None:
        return
    bits = stat.S_IMODE(mode) & ~caller.umask
    if inherits and stat.S_ISDIR(mode):
        bits |= stat.S_ISGID
    path_of(descriptor).chmod(bits)


def _require_passed(name: str, number: int) -> None:
    if is_own(name):
        raise OSError(errno.EPERM if number == errno.EOPNOTSUPP else number, os.strerror(number))
    if not name.startswith(_PASSED):
        raise OSError(number, os.strerror(number))
