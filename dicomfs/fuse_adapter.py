"""FUSE requests in, tree calls out: look up, offload, translate, map the error; nothing else.

Owns everything that is FUSE's: handles, timeouts, permission bits, errno.  The only exceptions that leave a
handler are FUSEError and trio's cancellation, because any other ends the mount (pyfuse3, ``Operations``).
docs/concurrency.md lists each ``await`` and what may change across it.
"""

# ruff: noqa: ARG002 - pyfuse3 fixes the parameters of the handlers
from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never

import pyfuse3
import trio

from dicomfs.errors import ObjectCold
from dicomfs.fuse_errors import guarded
from dicomfs.index.records import Counts
from dicomfs.mount_options import MountOptions
from dicomfs.offload import Offload, Work
from dicomfs.readahead import ReadAhead
from dicomfs.vfs import NAME_BYTES, ROOT_INODE, Tree, instance_of
from dicomfs.vfs_types import Attributes, FileReader, Listing, ResidencyControl

CACHE_SECONDS = 300.0
"""How long the kernel may keep names and attributes; what changes earlier is invalidated."""
HEARTBEAT_SECONDS = 0.5
"""The same for the top folder's attributes.  The kernel asks for them on every path from the top, so that
a dead daemon is noticed within this time even where all else is cached."""
XATTR_BYTES = 65536
"""Longest extended attribute that Linux hands to a caller (XATTR_SIZE_MAX)."""
BLOCK_BYTES = 512
"""Unit of ``st_blocks``."""
PREFERRED_READ_BYTES = 1 << 17
STATFS_BYTES = 4096

_STORAGE = "user.dicomfs."
_DICOM = "user.dicom."
_PIN, _WARM = b"user.dicomfs.pin", b"user.dicomfs.warm"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND

TopEntry = Callable[[], Awaitable[pyfuse3.EntryAttributes]]
"""Describes an entry of the top folder that is not the archive's."""


@dataclass(slots=True)
class OpenFile:
    """A file handle."""

    inode: int
    reader: FileReader
    read_ahead: bool = False
    """Whether what follows it was already asked for."""


@dataclass(slots=True)
class OpenFolder:
    """A folder handle: positions of a listing stay valid however the folder changes meanwhile."""

    inode: int
    listing: Listing = field(default=Listing(-1, ()))


class ArchiveOperations(pyfuse3.Operations):
    """Answers the kernel.  Belongs to the trio thread; only calls made through ``offload`` leave it."""

    enable_writeback_cache = False
    supports_dot_lookup = False

    def __init__(
        self,
        tree: Tree,
        options: MountOptions,
        offload: Offload,
        read_ahead: ReadAhead,
        usage: Callable[[], tuple[int, int]],
        counts: Callable[[], Counts],
        residency: ResidencyControl | None = None,
    ) -> None:
        super().__init__()
        self.tree, self.offload, self.read_ahead = tree, offload, read_ahead
        self._usage, self._counts, self._residency = usage, counts, residency
        self._user_xattr = options.user_xattr
        self._owner = options.uid, options.gid
        self._file_mode = stat.S_IFREG | options.file_mode
        self._folder_mode = stat.S_IFDIR | options.folder_mode
        self._handles = itertools.count(1)
        self._files_open: dict[int, OpenFile] = {}
        self._folders_open: dict[int, OpenFolder] = {}
        self._top_extra: list[tuple[bytes, TopEntry]] = []
        self.started = trio.Event()
        self._wished, self._wishes_to_serve = trio.open_memory_channel[None](offload.limit(Work.AHEAD))

    def init(self) -> None:
        """The kernel has spoken to us: from now on requests are answered."""
        self.started.set()

    def close(self) -> None:
        """Close what is still open when the mount ends."""
        for opened in self._files_open.values():
            opened.reader.close()
        self._files_open.clear()

    def add_to_top(self, name: bytes, describe: TopEntry) -> None:
        """List another entry in the top folder; somebody else answers for it."""
        self._top_extra.append((name, describe))

    # -- names and attributes ---------------------------------------------------------------------------

    @guarded
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Describe a name.  Missing names raise ENOENT, so that the kernel keeps no negative entry."""
        if self.tree.may_block(parent_inode):
            return self._shown(await self.offload.run(Work.ASK, self.tree.lookup, parent_inode, name))
        return self._shown(self.tree.lookup(parent_inode, name))

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Describe an inode."""
        if self.tree.may_block(inode):
            return self._shown(await self.offload.run(Work.ASK, self.tree.attributes, inode))
        return self._shown(self.tree.attributes(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing to forget: inode numbers carry all there is to know."""

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a folder; it is read when the first entry is asked for."""
        handle = next(self._handles)
        self._folders_open[handle] = OpenFolder(inode)
        return handle

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Entries from a position on; position 0 reads the folder anew, as rewinddir wants it."""
        folder = self._folders_open[fh]
        if start_id == 0:
            folder.listing = await self.offload.run(Work.LIST, self.tree.listing, folder.inode)
        listing = folder.listing
        fresh = listing.change == self.tree.change()
        for position in range(start_id, len(listing.entries)):
            name, attributes = listing.entries[position]
            if not pyfuse3.readdir_reply(token, name, self._shown(attributes, keep=fresh), position + 1):
                return
        if folder.inode == ROOT_INODE:
            await self._list_extra(max(start_id, len(listing.entries)), len(listing.entries), token)

    async def _list_extra(self, start_id: int, before: int, token: pyfuse3.ReaddirToken) -> None:
        for position in range(start_id, before + len(self._top_extra)):
            name, describe = self._top_extra[position - before]
            if not pyfuse3.readdir_reply(token, name, await describe(), position + 1):
                return

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Close a folder."""
        self._folders_open.pop(fh, None)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """All that is shown is durable already."""

    # -- content ----------------------------------------------------------------------------------------

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file for reading."""
        if flags & _WRITING:
            raise pyfuse3.FUSEError(errno.EROFS)
        reader = await self.offload.run(Work.OPEN, self.tree.open, inode)
        handle = next(self._handles)
        self._files_open[handle] = OpenFile(inode, reader)
        volatile = self.tree.may_block(inode)
        return pyfuse3.FileInfo(fh=handle, keep_cache=not volatile, direct_io=volatile)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Bytes of a file: from memory inline, else from a thread."""
        opened = self._files_open[fh]
        self._look_ahead(opened, off + size)
        ready = opened.reader.read_ready(off, size)
        if ready is not None:
            return ready
        return await self.offload.run(Work.READ, opened.reader.read, off, size)

    @guarded
    async def flush(self, fh: int) -> None:
        """Nothing was written."""

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Nothing was written."""

    @guarded
    async def release(self, fh: int) -> None:
        """Close a file."""
        opened = self._files_open.pop(fh, None)
        if opened is not None:
            opened.reader.close()

    def _look_ahead(self, opened: OpenFile, end: int) -> None:
        """Ask for what follows once a reader is past the middle: who reads headers only never gets there."""
        if opened.read_ahead or 2 * end < opened.reader.size:
            return
        opened.read_ahead = True
        instance = instance_of(opened.inode)
        if instance is not None:
            self.read_ahead.wish(instance)
            with contextlib.suppress(trio.WouldBlock):  # as many are awake as there are
                while True:
                    self._wished.send_nowait(None)

    async def serve_wishes(self) -> None:
        """Decode ahead until cancelled; run as many of these as may decode at once."""
        async for _ in self._wishes_to_serve.clone():
            await self._serve_wishes()

    @guarded
    async def _serve_wishes(self) -> None:
        await self.offload.run(Work.AHEAD, self.read_ahead.work)

    # -- questions --------------------------------------------------------------------------------------

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """How an instance is stored, and its DICOM attributes; answered by name, never listed."""
        self._require_xattr()
        text = name.decode(errors="replace")
        if not text.startswith((_STORAGE, _DICOM)) or instance_of(inode) is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        value = await self.offload.run(Work.ASK, self._extended, inode, text)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        if len(value) > XATTR_BYTES:
            raise pyfuse3.FUSEError(errno.E2BIG)
        return value

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """None: what is listed is copied by ``cp -a`` and ``rsync -X``."""
        self._require_xattr()
        return ()

    def _require_xattr(self) -> None:
        """Without extended attributes the kernel is told so once and never asks again."""
        if not self._user_xattr:
            raise pyfuse3.FUSEError(errno.ENOSYS)

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Space of the local tier's file system, and the number of instances."""
        (total, free), files = await self.offload.run(Work.ASK, self._space)
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = STATFS_BYTES
        data.f_blocks, data.f_bfree = total // STATFS_BYTES, free // STATFS_BYTES
        data.f_bavail = data.f_bfree
        data.f_files, data.f_ffree, data.f_favail = files, 0, 0
        data.f_namemax = NAME_BYTES
        return data

    def _space(self) -> tuple[tuple[int, int], int]:
        return self._usage(), self._counts().instances

    def _extended(self, inode: int, name: str) -> bytes | None:
        where = self._where(inode) if name.startswith(_STORAGE) else {}
        short = name.removeprefix(_STORAGE)
        if short in where:
            return where[short].encode()
        try:
            reader = self.tree.open_instance(inode)
        except ObjectCold:
            if short != "all":
                raise
            return _stored(where, short)
        try:
            if name.startswith(_DICOM):
                value = reader.dicom_value(name.removeprefix(_DICOM))
                return None if value is None else value.encode(errors="surrogateescape")
            return _stored({**reader.info(), **where}, short)
        finally:
            reader.close()

    def _where(self, inode: int) -> Mapping[str, str]:
        instance = instance_of(inode)
        return {} if instance is None or self._residency is None else self._residency.of(instance)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Pin a file's series or have it brought near; nothing else can be set."""
        await self._act(inode, name, value, ctx)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Unpin; nothing else can be removed."""
        if name != _PIN:
            raise pyfuse3.FUSEError(errno.EROFS)
        await self._act(inode, name, b"0", ctx)

    async def _act(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._require_xattr()
        instance = instance_of(inode)
        if instance is None or self._residency is None or name not in (_PIN, _WARM):
            raise pyfuse3.FUSEError(errno.EROFS)
        if ctx.uid not in (0, self._owner[0]):
            raise pyfuse3.FUSEError(errno.EPERM)
        if value == b"1" and name == _WARM:
            await self.offload.run(Work.ASK, self._residency.warm, instance)
        elif value in (b"0", b"1") and name == _PIN:
            pin = functools.partial(self._residency.set_pin, instance, pinned=value == b"1")
            await self.offload.run(Work.ASK, pin)
        else:
            raise pyfuse3.FUSEError(errno.EINVAL)

    # -- the tree is read-only --------------------------------------------------------------------------

    @guarded
    async def _refuse(self, /, *args: object, **kwargs: object) -> Never:
        """Answer a write: the tree shows what was accepted, and nothing changes it from here."""
        raise pyfuse3.FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refuse
    write = create = _refuse

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """There are no symbolic links."""
        raise pyfuse3.FUSEError(errno.EINVAL)

    def _shown(self, attributes: Attributes, *, keep: bool = True) -> pyfuse3.EntryAttributes:
        """Attributes as FUSE wants them; ``keep`` is False for what a commit may have outdated."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(attributes.inode)
        seconds = CACHE_SECONDS if keep and not attributes.is_volatile else 0.0
        entry.entry_timeout = seconds
        entry.attr_timeout = HEARTBEAT_SECONDS if attributes.inode == ROOT_INODE else seconds
        entry.st_mode = pyfuse3.ModeT(self._folder_mode if attributes.is_folder else self._file_mode)
        # A folder has one link: a count of its folders would let find skip the files among them.
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = self._owner
        entry.st_size = attributes.size
        entry.st_blksize = PREFERRED_READ_BYTES
        # Never 0 for a file with bytes: GNU tar -S would archive zeros without reading.
        entry.st_blocks = -(-attributes.size // BLOCK_BYTES)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.mtime_ns
        return entry


def _stored(info: Mapping[str, object], name: str) -> bytes | None:
    """One fact of how an instance is stored, or all of them as JSON."""
    if name == "all":
        return json.dumps(info, sort_keys=True, default=str).encode()
    value = info.get(name)
    return None if value is None else str(value).encode()


class PyfuseCache:
    """What the kernel has cached, for the watcher of changes.

    Never to be called from the trio thread: a drop waits for pending requests on the folder or file, and
    they wait for that thread.  The plain calls are used, not ``invalidate_entry_async``: its thread cannot be
    joined before the session is destroyed, and it logs names of entries, which carry patient attributes.
    """

    def drop_attributes(self, inode: int) -> None:
        """Forget what ``stat`` shows of an inode.  Raises OSError."""
        pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=True)

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget what a name means, and all below it that nobody uses.  Raises OSError."""
        pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))
