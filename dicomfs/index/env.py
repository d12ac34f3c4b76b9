"""The door to LMDB: environments, transactions, and LMDB's errors in our words.

Owns opening, the rules of use (no writemap, one map size, short transactions, never across fork) and
schema versions.  Knows nothing of what the tables mean.  Reasons: docs/adr/0008-catalog-layout.md.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from dicomfs.errors import CatalogBusy, CatalogError, CatalogFull, CatalogOutdated
from dicomfs.index.guards import require_local
from dicomfs.index.keys import Table

CATALOG_MAP_BYTES = 1 << 40
"""Address space, not disk: the file grows by need.  One constant, because processes must agree on it."""
SPOOL_MAP_BYTES = 1 << 36
MAX_READERS = 1024
_LOCK_BYTES = 64 * MAX_READERS + 4096
"""Room for LMDB's table of readers, 64 bytes each, and its head; more only makes room for a few more."""
_LARGEST_WRITE = 1 << 20
"""More than LMDB hands to the system at once, 64 pages."""
SPARE_SNAPSHOTS = 16
"""Finished read transactions kept for the next reader; each holds one of the reader slots."""
SLOW_WRITE_SECONDS = 0.1
SLOW_READ_SECONDS = 1.0
WRITER_WAIT_SECONDS = 60.0
"""How long a thread waits for another thread of this process to finish its write transaction."""
_SCHEMA = b"schema"

_log = logging.getLogger(__name__)
_opened: dict[str, _Shared] = {}
_opened_lock = threading.Lock()

Upgrade = Callable[["WriteTxn"], None]


@dataclass(slots=True)
class _Shared:
    """One open file: LMDB's handle, its users in this process, and the lock of their writers."""

    env: lmdb.Environment
    users: int = 1
    writer: threading.RLock = field(default_factory=threading.RLock)
    writing: bool = False


def translate(error: lmdb.Error, what: str, folder: Path | None = None) -> CatalogError:
    """The catalog error for one of LMDB's; ``folder`` is that of the environment."""
    text = f"catalog: {what}: {error}"
    code = next((value for value in error.args[1:] if isinstance(value, int)), 0)
    full = isinstance(error, lmdb.MapFullError) or errno.ENOSPC in (code, getattr(error, "code", 0))
    if folder is not None and os.strerror(errno.EIO) in str(error) and _is_full(folder):
        # What the disk took in part only, LMDB calls an input/output error.
        full = True
    if full or os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
        return CatalogFull(f"{text}; free space on the disk of the index, nothing is lost")
    if isinstance(error, lmdb.LockError | lmdb.ReadersFullError):
        return CatalogBusy(f"{text}; end other processes of this archive, and run all in one PID namespace")
    if isinstance(error, lmdb.VersionMismatchError | lmdb.InvalidError | lmdb.CorruptedError):
        return CatalogOutdated(f"{text}; the index is unreadable: run `dicomfs recover`")
    return CatalogError(text)


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LARGEST_WRITE


def translate_system(error: OSError, path: Path) -> CatalogError:
    """The catalog error for one of the system, met while an index is opened."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CatalogFull(f"catalog: open: {path}: {error.strerror}; free space there, nothing is lost")
    return CatalogError(f"catalog: open: {path}: {error.strerror}")


class ReadTxn:
    """A snapshot of one environment; belongs to the thread that began it and lives for microseconds."""

    __slots__ = ("_tables", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[Table, lmdb._Database]) -> None:
        self._txn = txn
        self._tables = tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        return self._txn.get(key, db=self._tables[table])

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys with ``prefix`` and their values in key order, from ``start`` (a whole key) on."""
        with self._txn.cursor(self._tables[table]) as cursor:
            found = cursor.set_range(start or prefix) if start or prefix else cursor.first()
            if not found:
                return
            for key, value in cursor.iternext(keys=True, values=True):
                if not key.startswith(prefix):
                    return
                yield key, value

    def duplicates(self, table: Table, key: bytes, prefix: bytes) -> list[bytes]:
        """Values under ``key`` that begin with ``prefix``."""
        found: list[bytes] = []
        with self._txn.cursor(self._tables[table]) as cursor:
            # LMDB takes no empty value to search by.
            if cursor.set_range_dup(key, prefix) if prefix else cursor.set_key(key):
                for value in cursor.iternext_dup():
                    if not value.startswith(prefix):
                        break
                    found.append(value)
        return found

    def last(self, table: Table, prefix: bytes = b"") -> tuple[bytes, bytes] | None:
        """The greatest key with ``prefix``, and its value; None where there is none."""
        with self._txn.cursor(self._tables[table]) as cursor:
            after = _successor(prefix)
            found = cursor.prev() if after is not None and cursor.set_range(after) else cursor.last()
            if not found or not cursor.key().startswith(prefix):
                return None
            return cursor.item()

    def entries(self, table: Table) -> int:
        """Number of entries of a table (duplicates each count); O(1)."""
        return self._txn.stat(self._tables[table])["entries"]


class WriteTxn(ReadTxn):
    """The one write transaction of an environment."""

    __slots__ = ()

    def put(self, table: Table, key: bytes, value: bytes, *, append: bool = False) -> None:
        """Stores a value; with ``append`` the caller promises that the key is the greatest."""
        self._txn.put(key, value, append=append, db=self._tables[table])

    def put_duplicates(self, table: Table, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Adds sorted values under their keys (sorted pairs go in fastest)."""
        with self._txn.cursor(self._tables[table]) as cursor:
            cursor.putmulti(pairs)

    def delete(self, table: Table, key: bytes, value: bytes = b"") -> bool:
        """Removes a key, or with ``value`` one of its duplicates; whether it was there."""
        return self._txn.delete(key, value, db=self._tables[table])


class Environment:
    """One LMDB environment (`data.mdb`, `lock.mdb` in a folder), shared by all its users in a process.

    Any thread may use it.  LMDB forbids opening a file twice in a process, so the handle is shared and
    closed with the last user.
    """

    def __init__(
        self,
        folder: Path,
        tables: Sequence[Table],
        *,
        create: bool = False,
        readonly: bool = False,
        sync: bool = True,
        map_bytes: int = CATALOG_MAP_BYTES,
    ) -> None:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not (folder / "data.mdb").exists():
            msg = f"catalog: {folder} holds no index; run `dicomfs recover`"
            raise CatalogOutdated(msg)
        require_local(folder)
        self.folder = folder
        self.readonly = readonly
        self._pid = os.getpid()
        self._path = str(folder.resolve())
        self._closed = False
        with self._errors("open"):
            self._shared = _acquire(self._path, readonly=readonly, sync=sync, map_bytes=map_bytes)
            self._env = self._shared.env
            try:
                self._env.reader_check()
                self._tables = self._open_tables(tables, create=create)
            except BaseException:
                _release(self._path)
                raise

    def _open_tables(self, tables: Sequence[Table], *, create: bool) -> dict[Table, lmdb._Database]:
        opened = {}
        writable = not self._env.flags()["readonly"]
        try:
            # Without a transaction of ours the binding begins one to write while it holds the interpreter
            # lock: every thread would stand still, for ever if one of them is the writer waited for.
            with self._env.begin(write=True) if writable else contextlib.nullcontext() as txn:
                for table in tables:
                    opened[table] = self._env.open_db(
                        table.name.encode(),
                        txn=txn,
                        dupsort=table.duplicates,
                        dupfixed=table.duplicates,
                        create=create or (writable and table.since > 1),
                    )
        except (lmdb.NotFoundError, lmdb.ReadonlyError, lmdb.IncompatibleError) as error:
            msg = f"catalog: {self.folder} was written by another schema version; run `dicomfs recover`"
            raise CatalogOutdated(msg) from error
        return opened

    def close(self) -> None:
        """Gives the handle back; closing twice is fine."""
        if not self._closed:
            self._closed = True
            if os.getpid() == self._pid:
                _release(self._path)

    @contextmanager
    def read(self) -> Iterator[ReadTxn]:
        """A snapshot.  Never hold it across slow work: pages written since then cannot be reused."""
        self._require_mine()
        began = time.monotonic()
        try:
            # Not nested context managers: every lookup of the mount passes here.
            txn = self._env.begin()
            try:
                yield ReadTxn(txn, self._tables)
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise translate(error, "read") from error
        self._warn_if_slow("read", began, SLOW_READ_SECONDS)

    @contextmanager
    def write(self) -> Iterator[WriteTxn]:
        """A write transaction: committed at the end of the block, undone when it raises.

        Waits for writers of other processes.  Raises CatalogBusy where another thread keeps it too long,
        CatalogError inside another write block of the same thread, CatalogFull when there is no space.
        """
        if self.readonly:
            msg = "catalog: opened read-only"
            raise CatalogError(msg)
        shared = self._shared
        if not shared.writer.acquire(timeout=WRITER_WAIT_SECONDS):
            msg = f"catalog: another thread has been writing for {WRITER_WAIT_SECONDS:.0f} s"
            raise CatalogBusy(msg)
        try:
            if shared.writing:
                msg = "catalog: write transactions do not nest"
                raise CatalogError(msg)
            shared.writing = True
            try:
                self._require_mine()
                with self._errors("write"), self._env.begin(write=True) as txn:
                    began = time.monotonic()  # after waiting for the lock: what others wait for is counted
                    yield WriteTxn(txn, self._tables)
                self._warn_if_slow("write", began, SLOW_WRITE_SECONDS)
            finally:
                shared.writing = False
        finally:
            shared.writer.release()

    def reader_check(self) -> int:
        """Frees reader slots of dead processes (a killed reader pins old pages); how many there were."""
        with self._errors("reader check"):
            self._require_mine()
            return self._env.reader_check()

    def copy_to(self, folder: Path) -> None:
        """Writes a consistent, compacted copy into an empty folder."""
        with self._errors("copy"):
            self._require_mine()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env.copy(str(folder), compact=True)

    def check_schema(
        self, table: Table, current: int, upgrades: Mapping[int, Upgrade], *, create: bool
    ) -> None:
        """Compares the stored schema version, upgrading step by step (``upgrades[n]`` makes n + 1 of n).

        Raises CatalogOutdated where there is none, where it is newer, or where a step is missing.
        """
        with self.read() as txn:
            stored = txn.get(table, _SCHEMA)
        if stored is None and create:
            with self.write() as txn:
                txn.put(table, _SCHEMA, current.to_bytes(4, "big"))
            return
        found = 0 if stored is None else int.from_bytes(stored, "big")
        if found == current:
            return
        known = found < current and all(step in upgrades for step in range(found, current))
        if self.readonly or not known:
            advice = "open it once where it can be written" if known else "run `dicomfs recover`"
            advice = "upgrade dicomfs" if found > current else advice
            msg = f"catalog: schema version {found} where {current} is needed; {advice}"
            raise CatalogOutdated(msg)
        for step in range(found, current):
            with self.write() as txn:
                upgrades[step](txn)
                txn.put(table, _SCHEMA, (step + 1).to_bytes(4, "big"))

    def _require_mine(self) -> None:
        if self._closed:
            msg = "catalog: used after it was closed"
            raise CatalogError(msg)
        if os.getpid() != self._pid:
            msg = "catalog: opened before a fork; open it again in the new process"
            raise CatalogError(msg)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise translate(error, what, self.folder) from error

    def _warn_if_slow(self, what: str, began: float, limit: float) -> None:
        seconds = time.monotonic() - began
        if seconds > limit:
            _log.warning("slow %s transaction: %s held for %.3f s", what, self.folder.name, seconds)


def _acquire(path: str, *, readonly: bool, sync: bool, map_bytes: int) -> _Shared:
    with _opened_lock:
        shared = _opened.get(path)
        if shared is not None:
            if shared.env.flags()["readonly"] and not readonly:
                msg = f"catalog: {path} is open read-only in this process"
                raise CatalogBusy(msg)
            shared.users += 1
            return shared
        if not readonly:
            _reserve_locks(Path(path) / "lock.mdb")
        env = lmdb.open(
            path,
            map_size=map_bytes,
            max_dbs=32,
            max_readers=MAX_READERS,
            max_spare_txns=SPARE_SNAPSHOTS,
            readonly=readonly,
            sync=sync,
            metasync=sync,
            writemap=False,
            readahead=False,
            mode=0o600,
        )
        shared = _opened[path] = _Shared(env)
        return shared


def _reserve_locks(path: Path) -> None:
    """Give the lock file its blocks before LMDB maps it: on a full disk, touching a page without any kills.

    Raises:
        CatalogFull: there is no space for it.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The size of a table that is in use must stay.
            os.posix_fallocate(file, 0, os.fstat(file).st_size or _LOCK_BYTES)
        finally:
            os.close(file)
    except OSError as error:
        raise translate_system(error, path) from error


def _release(path: str) -> None:
    with _opened_lock:
        shared = _opened[path]
        shared.users -= 1
        if shared.users:
            return
        del _opened[path]
        with suppress(lmdb.Error):  # nothing is left to lose: every commit is already written
            shared.env.close()


def _successor(prefix: bytes) -> bytes | None:
    """The least key above all keys with ``prefix``; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
