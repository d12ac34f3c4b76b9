"""The catalog: what the archive holds, answered without touching a tier.

A facade over two LMDB environments: `catalog/` (synced, one commit per pack) and `spool/` (unsynced,
rebuilt after a reboot).  Owns the pairing of snapshots; the rules of each table are in the modules
beside it.  Any thread may call any method; no method keeps a transaction open after it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from dicomfs.errors import NotFoundError
from dicomfs.index.env import ReadTxn
from dicomfs.index.holds import hold_on, list_holds
from dicomfs.index.instances import (
    View,
    instance_text,
    is_forgotten,
    part_infos,
    series_versions,
    spooled_record,
    spooled_records,
)
from dicomfs.index.keys import (
    HOLDINGS,
    META,
    OBJECTS,
    SPOOLED,
    VERSIONS,
    Table,
    pack_object_key,
    unpack_object_key,
)
from dicomfs.index.node_queries import NodeQueries
from dicomfs.index.nodes import count_nodes
from dicomfs.index.object_writer import (
    get_needs,
    get_object,
    get_placed,
    get_references,
    list_condemned,
    list_intents,
    list_pinned,
    list_references,
    list_used,
    object_record,
)
from dicomfs.index.records import (
    Change,
    Condemned,
    Counts,
    Family,
    Hold,
    Holding,
    Intent,
    ObjectRecord,
    PartInfo,
    PartRef,
    SpooledRecord,
)
from dicomfs.index.recount import recount
from dicomfs.index.spool import FEED as SPOOL_FEED
from dicomfs.index.spool import SpoolWriter, next_position, spool_totals
from dicomfs.index.twins import broken_twins, get_family
from dicomfs.index.uses import all_uses, derived_uses, is_used, names_of, parts_using
from dicomfs.index.writer import CATALOG_FEED, MISSED, CatalogWriter, catalog_totals, tainted
from dicomfs.model import InstanceId, InstanceRow, Level, ObjectKey

_SPOOL_MARK_BITS = 64
_OBJECTS_AT_ONCE = 1000
_T = TypeVar("_T")


class Catalog(NodeQueries):
    """The index of one archive: `Catalog.create(folder, archive_id)` or `Catalog.open(folder)`."""

    # writing

    @contextmanager
    def write(self) -> Iterator[CatalogWriter]:
        """One write transaction: committed and synced at the end of the block, undone when it raises."""
        with self._catalog.write() as txn:
            writer = CatalogWriter(txn, self._spool.read, self._cache)
            yield writer
            writer.finish()

    @contextmanager
    def write_spool(self) -> Iterator[SpoolWriter]:
        """One write transaction on the spool's list; not synced."""
        with self._spool.write() as txn:
            writer = SpoolWriter(txn, self._catalog.read, self._cache)
            yield writer
            writer.finish()

    # instances

    def rows(self, series: int) -> list[InstanceRow]:
        """All instances of a series, packed and spooled, all versions, ordered by name and version."""
        with self._view() as view:
            return view.rows(series)

    def row(self, instance: InstanceId) -> InstanceRow:
        """One instance.  Raises NotFoundError."""
        with self._view() as view:
            found = view.row(instance)
        if found is None:
            raise NotFoundError("instance", instance_text(instance))
        return found

    def row_named(self, series: int, name: str, version: int = 0) -> InstanceRow | None:
        """The instance of a series with this file name and version."""
        with self._view() as view:
            return view.named(series, name, version)

    def slice_order(self, series: int) -> list[InstanceId]:
        """Packed instances of a series along its slices."""
        with self._view() as view:
            ordered = [
                (order, part, position)
                for part, decoded in view.parts(series)
                for order, position in zip(decoded.orders.tolist(), decoded.positions.tolist(), strict=True)
            ]
        return [InstanceId(series, position) for _, _, position in sorted(ordered)]

    def by_uid(self, sop_instance_uid: str) -> list[InstanceId]:
        """Instances (all versions) with this SOP Instance UID, compared with the UID itself."""
        with self._view() as view:
            return view.by_uid(sop_instance_uid)

    def part_of(self, instance: InstanceId) -> PartRef:
        """Where the packed record of an instance lies.  Raises NotFoundError while it is only spooled."""
        with self._view() as view:
            return view.part_ref(instance)

    def is_packed(self, instance: InstanceId) -> bool:
        """Whether an instance is in a committed part, listed by the spool or not."""
        with self._view() as view:
            return view.packed(instance) is not None

    def next_part(self, series: int) -> int:
        """The number for the next part of a series; never one that was used."""
        with self._catalog.read() as txn:
            return Holding.unpack(txn.get(HOLDINGS, HOLDINGS.pack(series))).next_part

    def parts(self, series: int) -> list[PartInfo]:
        """The committed parts of a series."""
        with self._catalog.read() as txn:
            return part_infos(txn, series)

    def versioned_series(self) -> list[int]:
        """Series that have superseded or rejected versions."""
        with self._catalog.read() as txn:
            return [
                series
                for series in _series_in(txn, VERSIONS)
                if any(version for version, _ in series_versions(txn, series).values())
            ]

    # spool

    def spooled(self, instance: InstanceId) -> SpooledRecord | None:
        """The spool's record of an instance, whether packed meanwhile or not."""
        with self._spool.read() as txn:
            return spooled_record(txn, instance)

    def is_provisional(self, instance: InstanceId) -> bool:
        """Whether an instance may still be withdrawn."""
        record = self.spooled(instance)
        return record is not None and record.provisional and not self.is_packed(instance)

    def spooled_series(self) -> list[int]:
        """Series with instances on the spool's list."""
        with self._spool.read() as txn:
            return _series_in(txn, SPOOLED)

    def spooled_of(self, series: int) -> list[SpooledRecord]:
        """The spool's records of a series, by position."""
        with self._spool.read() as txn:
            return spooled_records(txn, series)

    def next_position(self, series: int) -> int:
        """The first position of a series never given out; to take it, use `SpoolWriter.next_position`."""
        with self._spool.read() as spool, self._catalog.read() as catalog:
            return next_position(spool, catalog, series)

    # totals

    def counts(self) -> Counts:
        """What the archive holds, from running totals."""
        with self._view() as view:
            packed, spooled = catalog_totals(view.catalog), spool_totals(view.spool)
            both, both_bytes = view.overlap()
            patients, studies, series = (count_nodes(view.catalog, level) for level in Level)
        return Counts(
            patients,
            studies,
            series,
            packed.instances + spooled.instances - both,
            packed.logical_bytes + spooled.logical_bytes - both_bytes,
            spooled.instances,
            spooled.logical_bytes,
        )

    def recount(self) -> Counts:
        """The same, counted from the records one by one: for `verify`.  Takes its time on large archives."""
        return recount(self._spool, self._catalog)

    # objects

    def objects(self) -> Iterator[ObjectRecord]:
        """All objects but those that others stand in for; in short transactions, what changes may be seen."""
        return self._scan(lambda _, key, value: object_record(key, value))

    def families(self) -> Iterator[Family]:
        """The same, packs with their twins."""

        def family(txn: ReadTxn, key: ObjectKey, value: bytes) -> Family | None:
            record = object_record(key, value)
            return None if record is None or record.twin_of is not None else get_family(txn, key)

        return self._scan(family)

    def held(self) -> Iterator[ObjectRecord]:
        """The same, packs with the copies of their twins as their own."""
        return (family.held() for family in self.families())

    def _scan(self, read: Callable[[ReadTxn, ObjectKey, bytes], _T | None]) -> Iterator[_T]:
        start = b""
        while True:
            with self._catalog.read() as txn:
                page = [
                    item
                    for item, _ in zip(txn.scan(OBJECTS, start=start), range(_OBJECTS_AT_ONCE), strict=False)
                ]
                found = [read(txn, unpack_object_key(key), value) for key, value in page]
            yield from (one for one in found if one is not None)
            if len(page) < _OBJECTS_AT_ONCE:
                return
            start = page[-1][0] + b"\x00"

    def object(self, key: ObjectKey) -> ObjectRecord:
        """An object and its placements.  Raises NotFoundError."""
        with self._catalog.read() as txn:
            return get_object(txn, key)

    def find_object(self, key: ObjectKey) -> ObjectRecord | None:
        """An object and its placements; None for one that is not known, or that another stands in for."""
        with self._catalog.read() as txn:
            value = txn.get(OBJECTS, pack_object_key(key))
        return None if value is None else object_record(key, value)

    def family(self, key: ObjectKey) -> Family | None:
        """The pack that is read for a key, or that it is a twin of, with all its twins."""
        with self._catalog.read() as txn:
            return get_family(txn, key)

    def find_held(self, key: ObjectKey) -> ObjectRecord | None:
        """One of `held`, by any of its keys; None for one that is not known."""
        family = self.family(key)
        return None if family is None else family.held()

    def has_object(self, key: ObjectKey) -> bool:
        """Whether the catalog knows an object, a twin or not, and none that stands in for it."""
        return self.find_object(key) is not None

    def placed(self, key: ObjectKey) -> ObjectKey:
        """The object that counts for a key: its stand-in, the pack that it is a twin of, or itself."""
        with self._catalog.read() as txn:
            return get_placed(txn, key)

    def references(self, header_key: ObjectKey) -> list[ObjectKey]:
        """Objects that the instances of a header pack need; empty where none were recorded."""
        with self._catalog.read() as txn:
            return get_references(txn, header_key)

    def needs(self, series: int) -> dict[PartInfo, list[ObjectKey]]:
        """The parts of a series, each with the objects that are read for its instances, header pack first."""
        with self._catalog.read() as txn:
            return {
                part: [part.header_key, *sorted({get_placed(txn, key) for key in get_needs(txn, part)})]
                for part in part_infos(txn, series)
            }

    def referring(self, keys: Collection[ObjectKey]) -> list[ObjectKey]:
        """Header packs whose instances need any of these objects, by key."""
        wanted = set(keys)
        with self._catalog.read() as txn:
            return [header for header, needed in list_references(txn) if not wanted.isdisjoint(needed)]

    def intents(self) -> list[Intent]:
        """Objects that somebody is about to place."""
        with self._catalog.read() as txn:
            return list_intents(txn)

    def pinned_series(self) -> set[int]:
        """Numbers of the series whose objects stay on the local tier."""
        with self._catalog.read() as txn:
            return list_pinned(txn)

    def used(self) -> dict[ObjectKey, int]:
        """When each object was last read (ns), where that was noted."""
        with self._catalog.read() as txn:
            return list_used(txn)

    def is_used(self, key: ObjectKey) -> bool:
        """Whether a part, a header pack, or a name that is needed itself, needs an object."""
        with self._catalog.read() as txn:
            return is_used(txn, key)

    def names_of(self, key: ObjectKey) -> list[ObjectKey]:
        """Names of moved packs that are read by an object."""
        with self._catalog.read() as txn:
            return names_of(txn, key)

    def read_as(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        """Objects with what they are read by, under every name that this has, and its twins."""
        with self._catalog.read() as txn:
            placed = {get_placed(txn, key) for key in keys}
            families = [family for key in placed if (family := get_family(txn, key)) is not None]
            twins = {one.key for family in families for one in family.members}
            return {*keys, *placed, *twins}.union(*(names_of(txn, key) for key in placed))

    def parts_using(self, header_key: ObjectKey) -> list[tuple[int, int]]:
        """Series and number of the parts whose instances a header pack holds."""
        with self._catalog.read() as txn:
            return parts_using(txn, header_key)

    def places_in(self, header_key: ObjectKey) -> dict[int, list[int]]:
        """Rows of a header pack that are known, by its parts."""
        with self._view() as view:
            found = {}
            for series, number in parts_using(view.catalog, header_key):
                for part, decoded in view.parts(series):
                    if part == number:
                        rows = range(decoded.head.rows)
                        found[decoded.head.part_index] = [decoded.place(row) for row in rows]
        return found

    def broken_twins(self) -> list[ObjectKey]:
        """Objects whose record of a twin, or of whose twin they are, has no counterpart: for `verify`."""
        with self._catalog.read() as txn:
            return broken_twins(txn)

    def recount_uses(self) -> tuple[int, int]:
        """Records of who needs what that are missing, and that are wrong: for `verify`."""
        with self._catalog.read() as txn:
            recorded, derived = all_uses(txn), derived_uses(txn)
        return len(derived - recorded), len(recorded - derived)

    def condemned(self) -> list[Condemned]:
        """Copies that are to go."""
        with self._catalog.read() as txn:
            return list_condemned(txn)

    # decisions

    @property
    def missed_by_recovery(self) -> int:
        """How many things the recovery that made this index missed; 0 where there was none."""
        with self._catalog.read() as txn:
            return int.from_bytes(txn.get(META, MISSED) or b"", "big")

    def tainted(self) -> set[ObjectKey]:
        """Objects that others need and that still hold bytes of what was forgotten."""
        with self._catalog.read() as txn:
            return tainted(txn)

    def is_forgotten(self, instance: InstanceId) -> bool:
        """Whether an instance was forgotten: it never comes back."""
        with self._catalog.read() as txn:
            return is_forgotten(txn, instance)

    def holds(self) -> list[Hold]:
        """All holds."""
        with self._catalog.read() as txn:
            return list_holds(txn)

    def hold_on(self, instance: InstanceId) -> Hold | None:
        """A hold that keeps an instance: on itself, or on a folder that it is in."""
        with self._catalog.read() as txn:
            return hold_on(txn, instance)

    # changes

    def last_change(self) -> int:
        """A mark of the present state for `changes_since`; it grows with every visible change."""
        with self._spool.read() as spool, self._catalog.read() as catalog:
            return CATALOG_FEED.last(catalog) << _SPOOL_MARK_BITS | SPOOL_FEED.last(spool)

    def changes_since(self, mark: int) -> list[Change] | None:
        """What changed after a mark; None where the feed does not reach back: forget everything."""
        in_catalog, in_spool = mark >> _SPOOL_MARK_BITS, mark & ((1 << _SPOOL_MARK_BITS) - 1)
        with self._spool.read() as spool, self._catalog.read() as catalog:
            first = CATALOG_FEED.since(catalog, in_catalog)
            second = SPOOL_FEED.since(spool, in_spool)
        if first is None or second is None:
            return None
        return list(dict.fromkeys([*first, *second]))

    @contextmanager
    def _view(self) -> Iterator[View]:
        with self._spool.read() as spool, self._catalog.read() as catalog:
            yield View(spool, catalog, self._cache)


def _series_in(txn: ReadTxn, table: Table) -> list[int]:
    """The series that a table keyed by series has, each found with one step."""
    found: list[int] = []
    start = b""
    while True:
        item = next(txn.scan(table, start=start), None)
        if item is None:
            return found
        series = table.numbers(item[0])[0]
        found.append(series)
        start = table.pack(series + 1)
