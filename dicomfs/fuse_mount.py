"""One mount, two halves: requests go to the archive's trees or to ``incoming/``, by inode number or handle.

Owns the junction only: which half a number belongs to, the entry ``incoming`` of the top folder, and that
nothing is renamed or linked from one half into the other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pyfuse3

from dicomfs.fuse_adapter import ArchiveOperations
from dicomfs.fuse_errors import guarded
from dicomfs.fuse_incoming import IncomingOperations
from dicomfs.incoming.files import HANDLE_MARK
from dicomfs.index.inodes import is_archive_ino
from dicomfs.vfs import ROOT_INODE

NAME = b"incoming"

Handler = Callable[..., Coroutine[Any, Any, Any]]


def _by_inode(name: str) -> Handler:
    """A handler whose first argument is an inode number, of the object or of its folder."""

    async def handler(self: MountOperations, inode: int, /, *args: object) -> object:
        return await getattr(self.half(inode), name)(inode, *args)

    return handler


def _by_handle(name: str) -> Handler:
    """A handler whose first argument is a handle."""

    async def handler(self: MountOperations, fh: int, /, *args: object) -> object:
        half = self.incoming if fh & HANDLE_MARK else self.archive
        return await getattr(half, name)(fh, *args)

    return handler


class MountOperations(pyfuse3.Operations):
    """Answers the kernel.  Belongs to the trio thread."""

    enable_writeback_cache = False
    supports_dot_lookup = False

    def __init__(self, archive: ArchiveOperations, incoming: IncomingOperations | None) -> None:
        super().__init__()
        self.archive, self.incoming = archive, incoming
        if incoming is not None:
            archive.add_to_top(NAME, incoming.describe_top)

    def half(self, inode: int) -> ArchiveOperations | IncomingOperations:
        """Who answers for an inode."""
        if self.incoming is None or inode == ROOT_INODE or is_archive_ino(inode):
            return self.archive
        return self.incoming

    def init(self) -> None:
        """The kernel has spoken to us."""
        self.archive.init()

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Describe a name."""
        if parent_inode == ROOT_INODE and name == NAME and self.incoming is not None:
            return await self.incoming.describe_top()
        return await self.half(parent_inode).lookup(parent_inode, name, ctx)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Only ``incoming/`` remembers what the kernel knows."""
        if self.incoming is not None:
            await self.incoming.forget(
                [known for known in inode_list if self.half(known[0]) is self.incoming]
            )

    @guarded
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A hard link stays in its half."""
        self._require_one_half(inode, new_parent_inode)
        return await self.half(new_parent_inode).link(inode, new_parent_inode, new_name, ctx)

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """A name stays in its half."""
        self._require_one_half(parent_inode_old, parent_inode_new)
        half = self.half(parent_inode_old)
        await half.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    def _require_one_half(self, one: int, other: int) -> None:
        if self.half(one) is not self.half(other):
            raise pyfuse3.FUSEError(errno.EXDEV)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Space of the archive; what may be made is as many as the folder beneath ``incoming`` takes."""
        data = await self.archive.statfs(ctx)
        if self.incoming is not None:
            data.f_ffree = data.f_favail = await self.incoming.free_inodes()
            data.f_files += data.f_ffree
        return data

    getattr, setattr = _by_inode("getattr"), _by_inode("setattr")
    readlink, mknod, mkdir = _by_inode("readlink"), _by_inode("mknod"), _by_inode("mkdir")
    unlink, rmdir, symlink = _by_inode("unlink"), _by_inode("rmdir"), _by_inode("symlink")
    open, create, opendir = _by_inode("open"), _by_inode("create"), _by_inode("opendir")
    getxattr, setxattr = _by_inode("getxattr"), _by_inode("setxattr")
    listxattr, removexattr = _by_inode("listxattr"), _by_inode("removexattr")
    read, write, flush = _by_handle("read"), _by_handle("write"), _by_handle("flush")
    fsync, release = _by_handle("fsync"), _by_handle("release")
    readdir, fsyncdir, releasedir = _by_handle("readdir"), _by_handle("fsyncdir"), _by_handle("releasedir")
