"""Reading instances, packed and spooled together, from a pair of snapshots.

The order matters: the spool's snapshot is taken *before* the catalog's.  An instance is removed from
the spool only after its part is committed, so whoever no longer sees it spooled does see it packed;
who sees it in both takes the part.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from dicomfs.errors import NotFoundError
from dicomfs.index.env import ReadTxn
from dicomfs.index.keys import FORGOTTEN, MOVING, PARTS, SPOOLED, SPOOLED_NAMES, SPOOLED_UIDS, UIDS, VERSIONS
from dicomfs.index.parts import DecodedPart, Head, decode_part, part_info, read_head
from dicomfs.index.records import (
    PartInfo,
    PartRef,
    SpooledRecord,
    StoredSpooled,
    unpack_record,
    unpack_version,
)
from dicomfs.index.uids import candidates
from dicomfs.instance_names import instance_name, number_in_name, usable_number
from dicomfs.model import ConflictClass, InstanceId, InstanceRow

CACHED_ROWS = 500_000
"""About 60 bytes of memory each."""
NO_NUMBER = (1 << 64) - 1


class PartCache:
    """Decoded parts, least recently used first out, bounded by rows.  Any thread; one lock inside.

    A part is named by series, number and the stamp in its head, so a stale one is never returned.
    """

    def __init__(self, rows: int = CACHED_ROWS) -> None:
        self._limit = rows
        self._rows = 0
        self._parts: OrderedDict[tuple[int, int, int], DecodedPart] = OrderedDict()
        self._lock = threading.Lock()

    def decoded(self, series: int, part: int, blob: bytes, head: Head) -> DecodedPart:
        """The part of a blob, decoded now or before."""
        key = (series, part, head.stamp)
        with self._lock:
            found = self._parts.get(key)
            if found is not None:
                self._parts.move_to_end(key)
                return found
        decoded = decode_part(series, blob)
        with self._lock:
            if key not in self._parts:
                self._parts[key] = decoded
                self._rows += head.rows
            while self._rows > self._limit and len(self._parts) > 1:
                _, dropped = self._parts.popitem(last=False)
                self._rows -= dropped.head.rows
        return decoded


@dataclass(frozen=True, slots=True)
class View:
    """A pair of snapshots, the spool's taken first."""

    spool: ReadTxn
    catalog: ReadTxn
    cache: PartCache

    def parts(self, series: int) -> Iterator[tuple[int, DecodedPart]]:
        """The decoded parts of a series, by number."""
        for part, blob, head in part_blobs(self.catalog, series):
            yield part, self.cache.decoded(series, part, blob, head)

    def packed(self, instance: InstanceId) -> tuple[int, DecodedPart, int] | None:
        """Part number, part and row of a packed instance."""
        return find_packed(self.catalog, self.cache, instance)

    def rows(self, series: int) -> list[InstanceRow]:
        """All instances of a series, by name and version."""
        versions = series_versions(self.catalog, series)
        rows: list[InstanceRow] = []
        for _, part in self.parts(series):
            rows += part.instances(versions)
        spooled = spooled_records(self.spool, series)
        if spooled:
            packed = {row.id.position for row in rows}
            rows += [
                spooled_row(record, versions.get(record.id.position, (0, 0)))
                for record in spooled
                if record.id.position not in packed
            ]
        rows.sort(key=lambda row: (row.name, row.version))
        return rows

    def row(self, instance: InstanceId) -> InstanceRow | None:
        """One instance, packed or spooled."""
        found = self.packed(instance)
        if found is not None:
            _, part, row = found
            return part.instance(row, version_of(self.catalog, instance))
        record = spooled_record(self.spool, instance)
        return None if record is None else spooled_row(record, version_of(self.catalog, instance))

    def named(self, series: int, name: str, version: int) -> InstanceRow | None:
        """The instance with this name and version."""
        for _, part in self.parts(series):
            for row in part.rows_named(name):
                found = version_of(self.catalog, InstanceId(series, int(part.positions[row])))
                if found[0] == version:
                    return part.instance(row, found)
        for instance in spooled_named(self.spool, series, name):
            if version_of(self.catalog, instance)[0] == version:
                return self.row(instance)
        return None

    def by_uid(self, uid: str) -> list[InstanceId]:
        """Instances with this SOP Instance UID."""
        found = {*candidates(self.catalog, UIDS, uid), *candidates(self.spool, SPOOLED_UIDS, uid)}
        return sorted(instance for instance in found if self._uid_of(instance) == uid)

    def part_ref(self, instance: InstanceId) -> PartRef:
        """Where the packed record lies.  Raises NotFoundError."""
        found = self.packed(instance)
        if found is None:
            raise NotFoundError("packed instance", instance_text(instance))
        _, part, row = found
        return PartRef(part.head.header_key, part.head.part_index, part.place(row))

    def overlap(self) -> tuple[int, int]:
        """Instances and bytes that are in a part and still in the spool."""
        instances = size = 0
        for key, _ in self.catalog.scan(MOVING):
            series, number = MOVING.numbers(key)
            blob = self.catalog.get(PARTS, key)
            if blob is None:
                continue
            part = self.cache.decoded(series, number, blob, read_head(blob))
            for position, length in zip(part.positions.tolist(), part.sizes.tolist(), strict=True):
                if self.spool.get(SPOOLED, SPOOLED.pack(series, position)) is not None:
                    instances += 1
                    size += length
        return instances, size

    def _uid_of(self, instance: InstanceId) -> str | None:
        found = self.packed(instance)
        if found is not None:
            return found[1].uids[found[2]]
        record = spooled_record(self.spool, instance)
        return None if record is None else record.sop_instance_uid


def instance_text(instance: InstanceId) -> str:
    """An instance's number as errors name it."""
    return f"{instance.series}/{instance.position}"


def part_blobs(txn: ReadTxn, series: int) -> Iterator[tuple[int, bytes, Head]]:
    """Number, blob and head of each part of a series."""
    for key, blob in txn.scan(PARTS, PARTS.pack(series)):
        yield int.from_bytes(key[5:], "big"), blob, read_head(blob)


def part_infos(txn: ReadTxn, series: int) -> list[PartInfo]:
    """The parts of a series without their rows."""
    return [part_info(series, part, head) for part, _, head in part_blobs(txn, series)]


def find_packed(
    txn: ReadTxn,
    cache: PartCache,
    instance: InstanceId,
) -> tuple[int, DecodedPart, int] | None:
    """Part number, part and row of a packed instance."""
    for number, blob, head in part_blobs(txn, instance.series):
        if head.first <= instance.position <= head.last:
            part = cache.decoded(instance.series, number, blob, head)
            row = part.row_at(instance.position)
            if row is not None:
                return number, part, row
    return None


def forgotten_of(txn: ReadTxn, series: int) -> set[int]:
    """Positions of a series whose instances were forgotten."""
    return {int.from_bytes(key[5:], "big") for key, _ in txn.scan(FORGOTTEN, FORGOTTEN.pack(series))}


def is_forgotten(txn: ReadTxn, instance: InstanceId) -> bool:
    """Whether an instance was forgotten."""
    return txn.get(FORGOTTEN, FORGOTTEN.pack(instance.series, instance.position)) is not None


def series_versions(txn: ReadTxn, series: int) -> dict[int, tuple[int, int]]:
    """Version and conflict class by position; instances without a conflict are left out."""
    return {
        int.from_bytes(key[5:], "big"): unpack_version(value)
        for key, value in txn.scan(VERSIONS, VERSIONS.pack(series))
    }


def version_of(txn: ReadTxn, instance: InstanceId) -> tuple[int, int]:
    """Version and conflict class of an instance."""
    value = txn.get(VERSIONS, VERSIONS.pack(instance.series, instance.position))
    return (0, 0) if value is None else unpack_version(value)


def spooled_key(instance: InstanceId) -> bytes:
    """Key of an instance's spool record."""
    return SPOOLED.pack(instance.series, instance.position)


def spooled_record(txn: ReadTxn, instance: InstanceId) -> SpooledRecord | None:
    """The spool's record of an instance, or None."""
    value = txn.get(SPOOLED, spooled_key(instance))
    return None if value is None else _record(instance, value)


def spooled_records(txn: ReadTxn, series: int) -> list[SpooledRecord]:
    """The spool's records of a series, by position."""
    return [
        _record(InstanceId(series, int.from_bytes(key[5:], "big")), value)
        for key, value in txn.scan(SPOOLED, SPOOLED.pack(series))
    ]


def _record(instance: InstanceId, value: bytes) -> SpooledRecord:
    stored = unpack_record(value, StoredSpooled)
    uid = stored.uid.decode("utf-8", "surrogatepass")
    return SpooledRecord(
        instance,
        uid,
        stored.number,
        stored.name_level,
        stored.size,
        stored.mtime_ns,
        stored.sha256,
        stored.provisional,
    )


def spooled_name(record: SpooledRecord) -> str:
    """File name of a spooled instance."""
    return instance_name(record.number, record.sop_instance_uid, record.name_level)


def spooled_name_key(series: int, number: int | None) -> bytes:
    """Key of the spool's names table."""
    usable = usable_number(number)
    return SPOOLED_NAMES.pack(series, NO_NUMBER if usable is None else usable)


def spooled_named(txn: ReadTxn, series: int, name: str) -> list[InstanceId]:
    """Spooled instances with this file name."""
    possible, number = number_in_name(name)
    if not possible:
        return []
    ids = [
        InstanceId(series, int.from_bytes(value, "big"))
        for value in txn.duplicates(SPOOLED_NAMES, spooled_name_key(series, number), b"")
    ]
    records = [spooled_record(txn, instance) for instance in ids]
    return [record.id for record in records if record is not None and spooled_name(record) == name]


def spooled_row(record: SpooledRecord, version: tuple[int, int]) -> InstanceRow:
    """The public row of a spooled instance."""
    return InstanceRow(
        record.id,
        spooled_name(record),
        record.sop_instance_uid,
        record.size,
        record.mtime_ns,
        record.sha256[:8],
        version[0],
        ConflictClass(version[1]),
        True,
    )
