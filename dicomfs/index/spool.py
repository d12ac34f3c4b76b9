"""Writing the spool index: what was accepted and is not packed yet.

The spool *files* are the truth; this index is written without sync and rebuilt from them after a
reboot, so that accepting an instance costs one fsync and not two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from dicomfs.errors import CatalogError, CatalogFull
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.feed import Feed
from dicomfs.index.instances import (
    PartCache,
    find_packed,
    instance_text,
    is_forgotten,
    spooled_key,
    spooled_name,
    spooled_name_key,
    spooled_record,
)
from dicomfs.index.keys import (
    HOLDINGS,
    POSITIONS,
    SPOOL_CHANGED,
    SPOOL_FEED,
    SPOOL_META,
    SPOOLED,
    SPOOLED_NAMES,
    SPOOLED_UIDS,
)
from dicomfs.index.records import (
    Change,
    Holding,
    SpooledRecord,
    StoredSpooled,
    Totals,
    pack_record,
    unpack_record,
)
from dicomfs.index.uids import add_uids, remove_uid
from dicomfs.instance_names import instance_name
from dicomfs.model import POSITION_BITS, InstanceId, Level

SPOOL_TOTALS = b"totals"
REBUILT = b"rebuilt"
FEED = Feed(SPOOL_FEED, SPOOL_CHANGED)


def spool_totals(txn: ReadTxn) -> Totals:
    """Instances and bytes of the spool."""
    value = txn.get(SPOOL_META, SPOOL_TOTALS)
    return Totals() if value is None else unpack_record(value, Totals)


def next_position(spool: ReadTxn, catalog: ReadTxn, series: int) -> int:
    """The first position of a series never given out, by all that either environment knows."""
    counter = int.from_bytes(spool.get(POSITIONS, POSITIONS.pack(series)) or b"", "big")
    return max(counter, Holding.unpack(catalog.get(HOLDINGS, HOLDINGS.pack(series))).next_position)


class SpoolWriter:
    """One write transaction on the spool index; made by `Catalog.write_spool`, used by one thread."""

    def __init__(
        self, txn: WriteTxn, catalog: Callable[[], AbstractContextManager[ReadTxn]], cache: PartCache
    ) -> None:
        self._txn = txn
        self._catalog = catalog
        self._cache = cache
        self._totals = spool_totals(txn)
        self._changes: set[Change] = set()

    def next_position(self, series: int) -> int:
        """The position for the next instance; stays the same until one is added there.

        Raises CatalogFull when the series has no positions left.
        """
        with self._catalog() as catalog:
            position = next_position(self._txn, catalog, series)
        if position >= 1 << POSITION_BITS:
            msg = f"catalog: series {series} has no positions left"
            raise CatalogFull(msg)
        return position

    def add(self, record: SpooledRecord) -> None:
        """Lists an accepted instance.  The same record again changes nothing.

        Raises CatalogError for a position that other bytes have or that was forgotten, ValueError for an
        impossible record.
        """
        if not 0 <= record.id.position < 1 << POSITION_BITS or record.size < 0 or len(record.sha256) != 32:
            msg = f"impossible spool record {record.id}"
            raise ValueError(msg)
        instance_name(None, "", record.name_level)  # raises for a level that names no name
        with self._catalog() as catalog:
            if is_forgotten(catalog, record.id):
                msg = f"catalog: instance {instance_text(record.id)} was forgotten"
                raise CatalogError(msg)
        present = spooled_record(self._txn, record.id)
        if present is not None:
            if present != record:
                msg = f"catalog: position {record.id.position} of series {record.id.series} is taken"
                raise CatalogError(msg)
            return
        series, position = record.id.series, record.id.position
        uid = record.sop_instance_uid
        self._put(record)
        add_uids(self._txn, SPOOLED_UIDS, [(uid, record.id)])
        name_key = spooled_name_key(series, record.number)
        self._txn.put(SPOOLED_NAMES, name_key, position.to_bytes(3, "big"))
        self._raise_position(series, position + 1)
        self._totals.instances += 1
        self._totals.logical_bytes += record.size
        self._changes.add(Change(Level.SERIES, series, None))

    def settle(self, ids: Iterable[InstanceId]) -> None:
        """What was accepted provisionally stays.  Those that are not listed are passed over."""
        for instance in ids:
            record = spooled_record(self._txn, instance)
            if record is not None and record.provisional:
                self._put(replace(record, provisional=False))

    def remove(self, ids: Iterable[InstanceId]) -> None:
        """Takes instances off the list: packed ones (nothing visible changes) or given up ones.

        Those that are not listed are passed over.
        """
        with self._catalog() as catalog:
            for instance in ids:
                record = spooled_record(self._txn, instance)
                if record is not None:
                    self._remove(record, packed=find_packed(catalog, self._cache, instance) is not None)

    def mark_rebuilt(self) -> None:
        """States that the list is whole again after `Catalog.spool_stale` was true."""
        self._txn.put(SPOOL_META, REBUILT, b"\x01")

    def finish(self) -> None:
        """Writes what the block gathered; `Catalog.write_spool` calls it before the commit."""
        self._txn.put(SPOOL_META, SPOOL_TOTALS, pack_record(self._totals))
        FEED.record(self._txn, self._changes)

    def _put(self, record: SpooledRecord) -> None:
        stored = StoredSpooled(
            record.sop_instance_uid.encode("utf-8", "surrogatepass"),
            record.number,
            record.name_level,
            record.size,
            record.mtime_ns,
            record.sha256,
            record.provisional,
        )
        self._txn.put(SPOOLED, spooled_key(record.id), pack_record(stored))

    def _remove(self, record: SpooledRecord, *, packed: bool) -> None:
        series, position = record.id.series, record.id.position
        self._txn.delete(SPOOLED, spooled_key(record.id))
        remove_uid(self._txn, SPOOLED_UIDS, record.sop_instance_uid, record.id)
        self._txn.delete(SPOOLED_NAMES, spooled_name_key(series, record.number), position.to_bytes(3, "big"))
        self._totals.instances -= 1
        self._totals.logical_bytes -= record.size
        if not packed:
            self._changes.add(Change(Level.SERIES, series, None))
            self._changes.add(Change(Level.SERIES, series, spooled_name(record)))

    def _raise_position(self, series: int, least: int) -> None:
        key = POSITIONS.pack(series)
        if least > int.from_bytes(self._txn.get(POSITIONS, key) or b"", "big"):
            self._txn.put(POSITIONS, key, least.to_bytes(4, "big"))
