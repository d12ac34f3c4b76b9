"""Opening the two LMDB environments of an index, and their lifetime.

Owns who may open (file system, PID namespace), schema versions, and throwing the spool's list away after
a reboot: it is written without sync, so only the kernel that wrote it can be trusted to have it whole.
Who opens to read only gets a list of its own in memory then.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from dicomfs.errors import CatalogOutdated, UsageError
from dicomfs.index.env import CATALOG_MAP_BYTES, SPOOL_MAP_BYTES, Environment, Upgrade, translate_system
from dicomfs.index.guards import Holder, boot_id
from dicomfs.index.instances import PartCache
from dicomfs.index.keys import CATALOG_TABLES, META, SPOOL_META, SPOOL_TABLES
from dicomfs.index.spool import FEED as SPOOL_FEED
from dicomfs.index.spool import REBUILT
from dicomfs.index.uses import fill_uses
from dicomfs.index.writer import CATALOG_FEED

SCHEMA = 3
SPOOL_SCHEMA = 1
UPGRADES: dict[int, Upgrade] = {1: fill_uses, 2: lambda _: None}
"""Version n to the step that makes n + 1 of it.  Version 3 knows twins, of which older ones have none."""
_ARCHIVE_ID = b"archive"


class IndexPair:
    """The index of one archive, in the folder that holds `catalog/` and `spool/` (mode 0700)."""

    def __init__(self, folder: Path, *, create: bool = False, readonly: bool = False) -> None:
        self.folder = folder
        self._cache = PartCache()
        with contextlib.ExitStack() as opened:
            self._holder = opened.enter_context(Holder(folder))
            trusted = not self._other_boot() or not (self._holder.first or readonly)
            fresh = create or not trusted
            spool = folder / "spool"
            if readonly and fresh:
                spool = Path(opened.enter_context(TemporaryDirectory(prefix="dicomfs-", dir=_memory())))
            elif fresh:
                self._discard_spool()
            self._catalog = Environment(
                folder / "catalog",
                CATALOG_TABLES,
                create=create,
                readonly=readonly,
                map_bytes=CATALOG_MAP_BYTES,
            )
            opened.callback(self._catalog.close)
            self._spool = Environment(
                spool,
                SPOOL_TABLES,
                create=fresh,
                readonly=readonly and not fresh,
                sync=False,
                map_bytes=SPOOL_MAP_BYTES,
            )
            opened.callback(self._spool.close)
            self._prepare(create=create, fresh=fresh, noted=not readonly)
            self._holder.share()
            self._opened = opened.pop_all()

    @classmethod
    def create(cls, folder: Path, archive_id: bytes) -> Self:
        """Makes an empty index in ``folder`` (usually `<archive>/index`).

        Raises UsageError where there is one, CatalogError on a file system that is not local.
        """
        if (folder / "catalog" / "data.mdb").exists():
            msg = f"{folder} holds an index already"
            raise UsageError(msg)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        catalog = cls(folder, create=True)
        with catalog._catalog.write() as txn:
            txn.put(META, _ARCHIVE_ID, archive_id)
        return catalog

    @classmethod
    def open(cls, folder: Path, *, readonly: bool = False) -> Self:
        """Opens the index in ``folder``, upgrading its schema where needed.

        Raises CatalogOutdated where it is missing, damaged or of another schema, CatalogBusy from
        another PID namespace, CatalogError on a file system that is not local.
        """
        if not (folder / "catalog" / "data.mdb").exists():
            msg = f"catalog: {folder} holds no index; run `dicomfs recover`"
            raise CatalogOutdated(msg)
        return cls(folder, readonly=readonly)

    def close(self) -> None:
        """Releases files and locks; closing twice is fine."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def archive_id(self) -> bytes:
        """What `create` was given."""
        with self._catalog.read() as txn:
            return txn.get(META, _ARCHIVE_ID) or b""

    @property
    def spool_stale(self) -> bool:
        """Whether the spool's list was thrown away (another boot) and waits for `mark_rebuilt`."""
        with self._spool.read() as txn:
            return txn.get(SPOOL_META, REBUILT) is None

    def reader_check(self) -> int:
        """Frees what killed readers pin, in both environments; to be called every minute."""
        return self._catalog.reader_check() + self._spool.reader_check()

    def snapshot(self, folder: Path) -> None:
        """Writes a consistent copy of the catalog (not of the spool's list) into an empty folder."""
        self._catalog.copy_to(folder / "catalog")

    def _other_boot(self) -> bool:
        try:
            return (self.folder / "boot").read_text(encoding="ascii") != boot_id()
        except (FileNotFoundError, UnicodeDecodeError):
            return True

    def _discard_spool(self) -> None:
        # Not opened to be looked at: after a power cut even opening it may fail.
        for name in ("data.mdb", "lock.mdb"):
            (self.folder / "spool" / name).unlink(missing_ok=True)

    def _prepare(self, *, create: bool, fresh: bool, noted: bool) -> None:
        self._catalog.check_schema(META, SCHEMA, UPGRADES, create=create)
        self._spool.check_schema(SPOOL_META, SPOOL_SCHEMA, {}, create=fresh)
        if create:
            with self._catalog.write() as txn:
                CATALOG_FEED.begin(txn)
        if fresh:
            with self._spool.write() as txn:
                SPOOL_FEED.begin(txn)
                if create:
                    txn.put(SPOOL_META, REBUILT, b"\x01")
            if noted:
                self._note_boot()

    def _note_boot(self) -> None:
        """Raises CatalogFull, CatalogError: the next opening will find another boot again."""
        try:
            # Not emptied first: a file that has its block keeps it on a full disk.
            descriptor = os.open(self.folder / "boot", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, boot_id().encode("ascii"), 0)
                os.ftruncate(descriptor, len(boot_id()))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise translate_system(error, self.folder / "boot") from error


def _memory() -> Path | None:
    """A folder in memory; None where there is none: then that for temporary files."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of an unguessable name is made in it
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else None
