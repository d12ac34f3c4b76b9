"""FUSE requests for ``incoming/``: each becomes one call on the folder beneath, in a thread.

Owns the translation between FUSE's types and ``incoming``'s, and the open folders.  Rights were checked by
the kernel (``default_permissions``).  What no request exists for in pyfuse3 (fallocate, O_TMPFILE,
copy_file_range, remote locks) the kernel answers by itself: docs/adr/0011-incoming-folder.md.
"""

# ruff: noqa: ARG002 - pyfuse3 fixes the parameters of the handlers
from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyfuse3

from dicomfs.fuse_errors import Handler, P, S, T, guarded
from dicomfs.incoming.files import HANDLE_MARK
from dicomfs.incoming.inodes import Known
from dicomfs.incoming.service import Incoming
from dicomfs.incoming.tree import Caller, Change
from dicomfs.offload import Offload, Work

CACHE_SECONDS = 1.0
"""How long the kernel may keep names and attributes: other mounts and `import` change the folder, too."""
BLOCK_BYTES = 512
PREFERRED_BYTES = 1 << 17
_LIST_AT_ONCE = 64
_LONGEST_NAME = 255


def _passing(handler: Handler[S, P, T]) -> Handler[S, P, T]:
    """Guard a handler; what the file system beneath says is what the caller is told."""

    @functools.wraps(handler)
    async def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, *args, **kwargs)
        except OSError as problem:
            raise pyfuse3.FUSEError(problem.errno or errno.EIO) from problem

    return guarded(wrapper)


@dataclass(slots=True)
class _OpenFolder:
    """A folder handle: its names as they were at the last rewind, so that positions stay valid."""

    inode: int
    names: list[bytes] = field(default_factory=list)


class IncomingOperations(pyfuse3.Operations):
    """Answers the kernel for what lies under ``incoming/``.  Belongs to the trio thread."""

    def __init__(self, incoming: Incoming, offload: Offload) -> None:
        super().__init__()
        self.incoming, self._offload = incoming, offload
        self._names, self._files = incoming.names, incoming.files
        self._handles = itertools.count(HANDLE_MARK + 1)
        self._folders: dict[int, _OpenFolder] = {}

    @_passing
    async def describe_top(self) -> pyfuse3.EntryAttributes:
        """Describe ``incoming/`` itself, for the folder above it."""
        return shown(await self._offload.run(Work.NAMES, self._names.attributes, self.root))

    @_passing
    async def free_inodes(self) -> int:
        """How many files and folders may still be made."""
        return await self._offload.run(Work.ASK, self.incoming.free_inodes)

    @property
    def root(self) -> int:
        """Inode number of ``incoming/`` itself."""
        return self.incoming.inodes.root

    # -- names ------------------------------------------------------------------------------------------

    @_passing
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Describe a name; missing names raise ENOENT, so that the kernel keeps no negative entry."""
        return _entry(await self._offload.run(Work.NAMES, self._names.lookup, parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel no longer knows some inodes; the top stays known."""
        self.incoming.inodes.forget([known for known in inode_list if known[0] != self.root])

    @_passing
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a folder."""
        handle = next(self._handles)
        self._folders[handle] = _OpenFolder(inode)
        return handle

    @_passing
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Entries from a position on; position 0 reads the names anew."""
        folder = self._folders[fh]
        if start_id == 0:
            folder.names = await self._offload.run(Work.LIST, self._names.names_in, folder.inode)
        position = start_id
        while position < len(folder.names):
            names = folder.names[position : position + _LIST_AT_ONCE]
            found = await self._offload.run(Work.LIST, self._names.entries, folder.inode, names)
            for at, (name, known) in enumerate(zip(names, found, strict=True)):
                position += 1
                if known and not pyfuse3.readdir_reply(token, name, _entry(known), position):
                    unused = [(later.status.st_ino, 1) for later in found[at:] if later]
                    self.incoming.inodes.forget(unused)
                    return

    @_passing
    async def releasedir(self, fh: int) -> None:
        """Close a folder."""
        self._folders.pop(fh, None)

    @_passing
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make the names in a folder durable."""
        await self._offload.run(Work.SYNC, self._names.sync_folder, self._folders[fh].inode)

    @_passing
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a folder."""
        make = self._names.make_folder
        return _entry(await self._offload.run(Work.NAMES, make, parent_inode, _fit(name), mode, _caller(ctx)))

    @_passing
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a file, a FIFO, a socket or a device."""
        make = self._names.make_node
        caller = _caller(ctx)
        return _entry(await self._offload.run(Work.NAMES, make, parent_inode, _fit(name), mode, rdev, caller))

    @_passing
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        make = self._names.make_symlink
        return _entry(
            await self._offload.run(Work.NAMES, make, parent_inode, _fit(name), target, _caller(ctx))
        )

    @_passing
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a hard link."""
        make = self._names.link
        return _entry(await self._offload.run(Work.NAMES, make, inode, new_parent_inode, _fit(new_name)))

    @_passing
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        await self._offload.run(Work.NAMES, self._names.unlink, parent_inode, name)

    @_passing
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty folder."""
        await self._offload.run(Work.NAMES, self._names.remove_folder, parent_inode, name)

    @_passing
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename, replace or exchange."""
        rename = self._names.rename
        old, new = (parent_inode_old, name_old), (parent_inode_new, _fit(name_new))
        await self._offload.run(Work.NAMES, rename, *old, *new, flags)

    @_passing
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Target of a symbolic link."""
        return await self._offload.run(Work.NAMES, self._names.read_link, inode)

    # -- attributes -------------------------------------------------------------------------------------

    @_passing
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Describe an inode."""
        return shown(await self._offload.run(Work.NAMES, self._names.attributes, inode))

    @_passing
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Change length, owner, mode or times, in this order: a change of owner clears bits of the mode."""
        change = Change(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            accessed_ns=attr.st_atime_ns if fields.update_atime else None,
            modified_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        size = attr.st_size if fields.update_size else None
        return shown(await self._offload.run(Work.DATA, self.incoming.change, inode, fh, size, change))

    @_passing
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """An extended attribute; the kernel asks for ``security.capability`` before every write."""
        if name.startswith(b"security."):
            raise pyfuse3.FUSEError(errno.ENODATA)
        return await self._offload.run(Work.NAMES, self._names.get_attribute, inode, os.fsdecode(name))

    @_passing
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Set an extended attribute."""
        await self._offload.run(Work.NAMES, self._names.set_attribute, inode, os.fsdecode(name), value)

    @_passing
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        await self._offload.run(Work.NAMES, self._names.remove_attribute, inode, os.fsdecode(name))

    @_passing
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Names of the extended attributes."""
        return await self._offload.run(Work.NAMES, self._names.list_attributes, inode)

    # -- content ----------------------------------------------------------------------------------------

    @_passing
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file."""
        return pyfuse3.FileInfo(
            fh=await self._offload.run(Work.DATA, self._files.open, inode, flags), keep_cache=False
        )

    @_passing
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it."""
        create = self._files.create
        wanted = parent_inode, _fit(name), mode, flags, _caller(ctx)
        handle, known = await self._offload.run(Work.DATA, create, *wanted)
        return pyfuse3.FileInfo(fh=handle, keep_cache=False), _entry(known)

    @_passing
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Bytes of a file."""
        return await self._offload.run(Work.DATA, self._files.read, fh, off, size)

    @_passing
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        return await self._offload.run(Work.DATA, self._files.write, fh, off, buf)

    @_passing
    async def flush(self, fh: int) -> None:
        """A descriptor of the client was closed: what is whole is accepted before close(2) returns."""
        if self._files.is_changed(fh):
            await self._offload.run(Work.SYNC, self.incoming.flush, fh)

    @_passing
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make the bytes durable."""
        await self._offload.run(Work.SYNC, functools.partial(self._files.sync, fh, data_only=datasync))

    @_passing
    async def release(self, fh: int) -> None:
        """Close a file."""
        await self._offload.run(Work.DATA, self.incoming.release, fh)


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


def _fit(name: bytes) -> bytes:
    """A new name, which FUSE hands over up to 1,024 bytes long."""
    if len(name) > _LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def _entry(known: Known) -> pyfuse3.EntryAttributes:
    entry = shown(known)
    entry.generation = known.generation
    return entry


def shown(known: Known) -> pyfuse3.EntryAttributes:
    """What stat(2) gave beneath, as FUSE wants it; a stub has the times of the file that it stands for."""
    status, stub = known.status, known.stub
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(status.st_ino)
    entry.entry_timeout = entry.attr_timeout = CACHE_SECONDS
    entry.st_mode = pyfuse3.ModeT(status.st_mode)
    entry.st_nlink, entry.st_uid, entry.st_gid = status.st_nlink, status.st_uid, status.st_gid
    entry.st_rdev, entry.st_size = status.st_rdev, status.st_size
    entry.st_blksize = PREFERRED_BYTES
    # Never 0 for a file with bytes, whatever lies beneath: GNU tar -S would archive zeros without reading.
    entry.st_blocks = -(-status.st_size // BLOCK_BYTES) if stat.S_ISREG(status.st_mode) else status.st_blocks
    entry.st_atime_ns = status.st_atime_ns
    entry.st_mtime_ns = stub.mtime_ns if stub else status.st_mtime_ns
    entry.st_ctime_ns = stub.ctime_ns if stub else status.st_ctime_ns
    return entry
