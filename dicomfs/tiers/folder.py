"""FolderTier: objects as files below a folder, on a local disk or a network file system.

Owns durability of objects on POSIX: temporary file, fsync, link (fails when the name is taken, unlike
rename), fsync of every folder whose entries changed.  The folder itself is made by whoever configures the
tier, and must exist: a NAS that is not mounted must not look like an empty tier.  A folder of another machine
is known by its sentinel (sentinel.py): each operation opens the folder, looks for the sentinel in it, and
works below what it has opened, so that nothing gets into the folder beneath when it is unmounted in between.

Layout: ``<folder>/<key>``; temporary files in ``<folder>/.tmp/``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dicomfs.errors import ObjectExists, ObjectNotFound, TierError, TierFull, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.paths import sync_folder
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.base import ByteRange, ObjectStat, TierTraits, TierUsage, check_key, check_prefix
from dicomfs.tiers.sentinel import SentinelCheck

_TEMPORARY = ".tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_TRANSIENT = frozenset({errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR, errno.EBUSY})
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})
"""A hard link can't be made here (other file system, FAT, too many links): copy instead."""


class FolderTier:
    """Objects as files of mode 0400 in folders of mode 0700.

    Thread-safe and safe against other processes with the same folder: all state is in the file system.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        local: bool = True,
        archive_id: bytes | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """With ``archive_id``, the folder must hold the sentinel of that archive whenever it is used."""
        self.name = name
        self.path = path
        """The tier's folder."""
        self._sentinel = None if archive_id is None else SentinelCheck(name, archive_id)
        self._bandwidth = bandwidth or Bandwidth()
        self.traits = TierTraits(
            local=local, trusted=True, connections=4, range_cost_bytes=0 if local else 1 << 20
        )

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put.  A source file on the same file system is linked, and made read-only."""
        check_key(key, self.name)
        # Here a missing file is the source, or the tier's folder: never the object.
        with self._opened(key, absent=frozenset()) as folder:
            target = folder / key
            if target.exists():
                self._require_same(key, target, sha256)
                return
            self._make_parents(folder, target.parent)
            temporary = self._stage(folder, source)
            try:
                if _sha256_of(temporary) != sha256:
                    raise TierError(self.name, key, "source does not match its digest")
                self._publish(key, temporary, target, sha256)
            finally:
                temporary.unlink(missing_ok=True)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        check_key(key, self.name)
        with self._opened(key) as folder:
            data = (folder / key).read_bytes()
        self._bandwidth.take(len(data))
        return data

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        check_key(key, self.name)
        with self._opened(key) as folder, (folder / key).open("rb", buffering=0) as file:
            return self._pread(file, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        check_key(key, self.name)
        with self._opened(key) as folder:
            found = (folder / key).stat()
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(self.name, key)
        return ObjectStat(found.st_size, found.st_mtime_ns)

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore: nothing is ever cold here."""
        self.stat(key)

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete.  Empty folders stay: removing them would race with ``put``."""
        check_key(key, self.name)
        with self._opened(key) as folder:
            folder.stat()
            target = folder / key
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                target.unlink()
                sync_folder(target.parent)

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase: nothing is kept."""
        self.delete(key)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list."""
        check_prefix(prefix, self.name)
        with self._opened(prefix) as folder:
            folder.stat()
            yield from self._walk(folder, folder / prefix)

    def usage(self) -> TierUsage:
        """See Tier.usage: of the whole file system, as available to this user."""
        with self._opened("") as folder:
            found = shutil.disk_usage(folder)
        return TierUsage(found.total, found.free)

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local."""
        self.stat(key)
        return self.path / key

    def discard_temporaries(self, older_than: float) -> int:
        """Remove what crashed puts left behind ``older_than`` seconds ago or earlier; returns how many."""
        end, removed = time.time() - older_than, 0
        with self._opened("") as folder:
            temporaries = folder / _TEMPORARY
            for entry in list(os.scandir(temporaries)) if temporaries.is_dir() else []:
                with suppress(FileNotFoundError):
                    # A linked source keeps its own mtime; ctime is when the link was made.
                    if entry.stat(follow_symlinks=False).st_ctime <= end:
                        Path(entry.path).unlink()
                        removed += 1
        return removed

    def _walk(self, root: Path, folder: Path) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        try:
            entries = sorted(os.scandir(folder), key=_sort_key)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(root, Path(entry.path))
                continue
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                key = Path(entry.path).relative_to(root).as_posix()
                yield ObjectKey(key), ObjectStat(found.st_size, found.st_mtime_ns)

    def _make_parents(self, root: Path, folder: Path) -> None:
        """Make the folders between the tier's folder and an object, each durable in its parent."""
        if folder.is_dir():
            return
        if folder == root:
            raise TierError(self.name, "", "the tier's folder is missing")
        self._make_parents(root, folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # Also when another process made it just now: it may not have synced it yet.
        sync_folder(folder.parent)

    def _stage(self, root: Path, source: Path | bytes) -> Path:
        """A durable temporary file with the source's bytes: a link to it where possible, else a copy."""
        folder = root / _TEMPORARY
        folder.mkdir(mode=0o700, exist_ok=True)
        temporary = folder / secrets.token_hex(16)
        # Away from home a link would be no second copy: whatever harms one harms the other.
        if isinstance(source, Path) and self.traits.local and _linked(source, temporary):
            # The source too, it is the same file: what became an object must not be written to.
            temporary.chmod(0o400)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            return temporary
        try:
            with temporary.open("xb") as target:
                self._copy(source, target)
                target.flush()
                temporary.chmod(0o400)
                os.fsync(target.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _publish(self, key: ObjectKey, temporary: Path, target: Path, sha256: str) -> None:
        try:
            os.link(temporary, target)
        except FileExistsError:
            self._require_same(key, target, sha256)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self._publish_without_links(key, temporary, target, sha256)
        sync_folder(target.parent)

    def _publish_without_links(self, key: ObjectKey, temporary: Path, target: Path, sha256: str) -> None:
        """For file systems without hard links (SMB, FAT): rename may replace, so look first.

        Two writers of one key at the same moment bring the same bytes: the key is made from their digest.
        """
        if target.exists():
            self._require_same(key, target, sha256)
        else:
            temporary.rename(target)

    def _require_same(self, key: ObjectKey, target: Path, sha256: str) -> None:
        """Compare what is there; make it durable first, its writer may have died before its fsync."""
        with target.open("rb") as file:
            os.fsync(file.fileno())
        if _sha256_of(target) != sha256:
            raise ObjectExists(self.name, key)
        sync_folder(target.parent)

    def _copy(self, source: Path | bytes, target: BinaryIO) -> None:
        with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            while piece := file.read(self._bandwidth.piece):
                self._bandwidth.take(len(piece))
                target.write(piece)

    def _pread(self, file: BinaryIO, wanted: ByteRange) -> bytes:
        """All bytes of the range that exist: a single pread may return fewer."""
        pieces, offset, missing = [], wanted.offset, wanted.length
        step = self._bandwidth.piece if self._bandwidth.limited else wanted.length
        while missing and (piece := os.pread(file.fileno(), min(missing, step), offset)):
            self._bandwidth.take(len(piece))
            pieces.append(piece)
            offset += len(piece)
            missing -= len(piece)
        return b"".join(pieces)

    @contextmanager
    def _opened(self, key: str, absent: frozenset[int] = _ABSENT) -> Iterator[Path]:
        """The tier's folder, to work below; errors of the system are raised as errors of the tier."""
        try:
            if self._sentinel is None:
                yield self.path
            else:
                with _held(self.path) as folder:
                    self._sentinel.require(folder)
                    yield folder
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno else "input/output failed"
            if error.errno in absent and self.path.is_dir():
                raise ObjectNotFound(self.name, key) from error
            if error.errno in _FULL:
                raise TierFull(self.name, key, problem) from error
            if error.errno in _TRANSIENT:
                raise TransientTierError(self.name, key, problem) from error
            raise TierError(self.name, key, problem) from error


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """A name of a folder that stays its name whatever is mounted or unmounted over it meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _sort_key(entry: os.DirEntry[str]) -> str:
    # As keys sort: a folder "a" stands for "a/...", and "-" and "." sort before "/".
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _linked(source: Path, temporary: Path) -> bool:
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _sha256_of(path: Path) -> str:
    """Digest of a synced file as the disk or server has it: the copy in memory proves nothing."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()
