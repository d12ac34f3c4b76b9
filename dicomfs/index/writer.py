"""Writing the catalog: one block, one LMDB transaction, one commit, one feed entry.

Owns what must change together: rows with their UIDs, holdings and totals; nodes with their folders;
and what the mount is told.  Objects and intents are in object_writer.py.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index import nodes
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.feed import Feed
from dicomfs.index.instances import (
    PartCache,
    find_packed,
    forgotten_of,
    part_blobs,
    spooled_key,
    spooled_name,
    spooled_record,
    version_of,
)
from dicomfs.index.keys import (
    CHANGED,
    FEED,
    FORGOTTEN,
    HELD,
    HOLDINGS,
    META,
    MOVING,
    NEEDS,
    PARTS,
    SPOOLED,
    UIDS,
    VERSIONS,
    pack_object_key,
    unpack_object_key,
)
from dicomfs.index.object_writer import ObjectWriter
from dicomfs.index.parts import DecodedPart, decode_part, encode_part, read_head
from dicomfs.index.records import (
    ROOT,
    Change,
    Holding,
    PartRow,
    StoredHold,
    Totals,
    pack_record,
    pack_version,
    unpack_record,
)
from dicomfs.index.uids import add_uids, remove_uid
from dicomfs.index.uses import add_use, part_user, remove_use
from dicomfs.model import (
    ConflictClass,
    InstanceId,
    Level,
    ObjectKey,
    PatientNode,
    SeriesNode,
    StudyNode,
    Subject,
)

TOTALS = b"totals"
MISSED = b"missed by recovery"
TAINTED = b"objects that hold what was forgotten"
CATALOG_FEED = Feed(FEED, CHANGED)


def catalog_totals(txn: ReadTxn) -> Totals:
    """Packed instances and their bytes."""
    value = txn.get(META, TOTALS)
    return Totals() if value is None else unpack_record(value, Totals)


def tainted(txn: ReadTxn) -> set[ObjectKey]:
    """Objects that others need and that hold bytes of what was forgotten."""
    value = txn.get(META, TAINTED)
    return set() if value is None else set(map(unpack_object_key, unpack_record(value, list[bytes])))


class CatalogWriter(ObjectWriter):
    """One write transaction on the catalog; made by `Catalog.write`, used by one thread.

    The finders answer with what this block has written; `Catalog`'s own answer with what is committed.
    """

    def __init__(
        self, txn: WriteTxn, spool: Callable[[], AbstractContextManager[ReadTxn]], cache: PartCache
    ) -> None:
        super().__init__(txn)
        self._spool = spool
        self._cache = cache
        self._totals = catalog_totals(txn)
        self._stamp = time.time_ns()
        self._changes: set[Change] = set()
        self._added: set[InstanceId] = set()
        self._removed: dict[InstanceId, str] = {}

    # nodes

    def reserve(self, level: Level, count: int) -> int:
        """Sets ``count`` numbers of a level aside for ever and returns the first."""
        first = nodes.next_number(self._txn, level)
        nodes.raise_counter(self._txn, level, first + count)
        return first

    def raise_counter(self, level: Level, least: int) -> None:
        """Makes sure that numbers below ``least`` are never given out (again): for recovery."""
        nodes.raise_counter(self._txn, level, least)

    def add_patient(self, node: PatientNode) -> None:
        """Adds a patient; the same node again changes nothing.

        Raises CatalogError where its number, identity or folder name is taken.
        """
        self._add(node)

    def add_study(self, node: StudyNode) -> None:
        """Adds a study to its patient, as `add_patient`; NotFoundError without the patient."""
        self._add(node)

    def add_series(self, node: SeriesNode) -> None:
        """Adds a series to its study, as `add_patient`; NotFoundError without the study."""
        self._add(node)

    def find_patient(self, issuer: str, patient_id: str, name: str) -> PatientNode | None:
        """The patient of an identity."""
        found = nodes.find_node(self._txn, Level.PATIENT, 0, issuer, patient_id, name)
        return found if isinstance(found, PatientNode) else None

    def find_study(self, patient: int, uid: str) -> StudyNode | None:
        """The study of a patient by its UID."""
        found = nodes.find_node(self._txn, Level.STUDY, patient, uid)
        return found if isinstance(found, StudyNode) else None

    def find_series(self, study: int, uid: str) -> SeriesNode | None:
        """The series of a study by its UID."""
        found = nodes.find_node(self._txn, Level.SERIES, study, uid)
        return found if isinstance(found, SeriesNode) else None

    def folder_taken(self, level: Level, parent: int, folder: str) -> bool:
        """Whether a folder name is given out under a parent, compared case-folded."""
        return nodes.folder_taken(self._txn, level, parent, folder)

    # instances

    def next_part(self, series: int) -> int:
        """The number for the next part of a series; never one that was used."""
        return self._holding(series).next_part

    def commit_part(
        self, series: int, part: int, header_key: ObjectKey, part_index: int, rows: Sequence[PartRow]
    ) -> None:
        """Makes packed instances known.  The index of a row is its row in the header pack's part.

        Instances that are in the spool change place without any visible change; those that were forgotten
        meanwhile are left out.  Raises NotFoundError without the series, CatalogError where the part or an
        instance is packed already (`remove_part` first to replace), ValueError for impossible rows.
        """
        nodes.get_node(self._txn, Level.SERIES, series)
        places = self._remembered(series, rows)
        if len(places) < len(rows):
            self._count(series, 0, 0, next_position=max(row.position for row in rows) + 1, next_part=part + 1)
            rows = [rows[place] for place in places]
            if not rows:
                return
        blob = encode_part(
            rows, header_key, part_index, self._stamp, None if places == list(range(len(rows))) else places
        )
        self._require_unpacked(series, part, {row.position for row in rows}, blob)
        key = PARTS.pack(series, part)
        self._txn.put(PARTS, key, blob)
        add_use(self._txn, header_key, part_user(series, part))
        ids = [(row.sop_instance_uid, InstanceId(series, row.position)) for row in rows]
        add_uids(self._txn, UIDS, ids)
        size = sum(row.size for row in rows)
        self._count(
            series, len(rows), size, next_position=max(row.position for row in rows) + 1, next_part=part + 1
        )
        with self._spool() as spool:
            spooled = {
                instance for _, instance in ids if spool.get(SPOOLED, spooled_key(instance)) is not None
            }
        if spooled:
            self._txn.put(MOVING, key, b"")
        self._added.update(instance for _, instance in ids if instance not in spooled)

    def remove_part(self, series: int, part: int) -> None:
        """Takes a part out: to replace it in the same block, or for good.  Raises NotFoundError.

        Positions and part numbers are not given out again.
        """
        key = PARTS.pack(series, part)
        blob = self._txn.get(PARTS, key)
        if blob is None:
            raise NotFoundError("part", f"{series}/{part}")
        decoded = decode_part(series, blob)
        self._txn.delete(PARTS, key)
        self._txn.delete(NEEDS, key)
        self._txn.delete(MOVING, key)
        remove_use(self._txn, decoded.head.header_key, part_user(series, part))
        self._take_out(decoded, range(decoded.head.rows))

    def forget(self, instances: Collection[InstanceId]) -> None:
        """Takes instances out for ever: whoever commits one later, from a pack or from the spool, is refused.

        Their rows leave their parts; what the spool lists of them is the caller's to remove.  Objects stay.
        """
        by_series: dict[int, set[int]] = defaultdict(set)
        for instance in instances:
            by_series[instance.series].add(instance.position)
            self._txn.put(FORGOTTEN, spooled_key(instance), self._stamp.to_bytes(8, "big"))
            self._txn.delete(VERSIONS, VERSIONS.pack(instance.series, instance.position))
        for series, positions in by_series.items():
            self._count(series, 0, 0, next_position=max(positions) + 1)
            for part, blob, head in list(part_blobs(self._txn, series)):
                if any(head.first <= position <= head.last for position in positions):
                    self._leave_out(series, part, decode_part(series, blob), positions)

    def hold(self, subject: Subject, reason: str) -> None:
        """Keeps what a subject is or has, now and later, from being forgotten."""
        key = HELD.pack(subject.level, subject.number, subject.position)
        self._txn.put(HELD, key, pack_record(StoredHold(reason, self._stamp)))

    def release(self, subject: Subject) -> None:
        """Ends the hold on exactly this subject; nothing happens without one."""
        self._txn.delete(HELD, HELD.pack(subject.level, subject.number, subject.position))

    def raise_position(self, series: int, least: int) -> None:
        """Makes sure that positions below ``least`` are never given out (again).

        Needed before a spooled instance is given up, and for recovery.
        """
        self._count(series, 0, 0, next_position=least)

    def set_version(
        self,
        instance: InstanceId,
        version: int,
        conflict: ConflictClass,
    ) -> None:
        """Makes an instance version ``version`` of its name (0: the one shown under ``patients/``).

        May come before the instance itself, so that two never show under one name.
        """
        key = VERSIONS.pack(instance.series, instance.position)
        before = version_of(self._txn, instance)
        if before == (version, conflict):
            return
        if version or conflict:
            self._txn.put(VERSIONS, key, pack_version(version, conflict))
        else:
            self._txn.delete(VERSIONS, key)
        name = self._name_of(instance)
        if name is not None and before[0] != version:
            self._changes.add(Change(Level.SERIES, instance.series, None))
            self._changes.add(Change(Level.SERIES, instance.series, name))

    def note_missed(self, problems: int) -> None:
        """Records how many things a recovery missed: gc condemns nothing while there are any."""
        self._txn.put(META, MISSED, problems.to_bytes(4, "big"))

    def note_tainted(self, keys: Collection[ObjectKey]) -> None:
        """Records objects that others need and that still hold bytes of what was forgotten."""
        self._set_tainted(tainted(self._txn).union(keys))

    def end_tainted(self, keys: Collection[ObjectKey]) -> None:
        """Forgets that about objects: they are gone, or about to be destroyed."""
        self._set_tainted(tainted(self._txn).difference(keys))

    def _set_tainted(self, keys: Collection[ObjectKey]) -> None:
        self._txn.put(META, TAINTED, pack_record([pack_object_key(key) for key in sorted(keys)]))

    def finish(self) -> None:
        """Writes what the block gathered; `Catalog.write` calls it before the commit."""
        for instance in self._added - self._removed.keys():
            self._changes.add(Change(Level.SERIES, instance.series, None))
        for instance in self._removed.keys() - self._added:
            self._changes.add(Change(Level.SERIES, instance.series, None))
            self._changes.add(Change(Level.SERIES, instance.series, self._removed[instance]))
        self._forget_versions(self._removed.keys() - self._added)
        self._forget_moved()
        self._txn.put(META, TOTALS, pack_record(self._totals))
        CATALOG_FEED.record(self._txn, self._changes)

    def _add(self, node: PatientNode | StudyNode | SeriesNode) -> None:
        level, parent, new = nodes.add_node(self._txn, node)
        if new:
            self._changes.add(Change(ROOT if level is Level.PATIENT else level - 1, parent, None))
            self._changes.add(Change(level, node.number, None))

    def _remembered(self, series: int, rows: Sequence[PartRow]) -> list[int]:
        """The places of rows that were not forgotten."""
        forgotten = forgotten_of(self._txn, series)
        return [place for place, row in enumerate(rows) if row.position not in forgotten]

    def _leave_out(self, series: int, part: int, decoded: DecodedPart, positions: set[int]) -> None:
        gone = [row for row, position in enumerate(decoded.positions.tolist()) if position in positions]
        if not gone:
            return
        if len(gone) == decoded.head.rows:
            self.remove_part(series, part)
            return
        kept = [row for row in range(decoded.head.rows) if row not in set(gone)]
        head = decoded.head
        places = [decoded.place(row) for row in kept]
        rows = [decoded.row(row) for row in kept]
        blob = encode_part(rows, head.header_key, head.part_index, self._stamp, places)
        self._txn.put(PARTS, PARTS.pack(series, part), blob)
        self._take_out(decoded, gone)

    def _take_out(self, decoded: DecodedPart, rows: Sequence[int]) -> None:
        """Forgets UIDs of rows that left a part, counts, and notes what changed."""
        for row in rows:
            instance = InstanceId(decoded.series, int(decoded.positions[row]))
            remove_uid(self._txn, UIDS, decoded.uids[row], instance)
            if instance in self._added:
                self._added.remove(instance)
            else:
                self._removed[instance] = decoded.name(row)
        self._count(decoded.series, -len(rows), -sum(int(decoded.sizes[row]) for row in rows))

    def _holding(self, series: int) -> Holding:
        return Holding.unpack(self._txn.get(HOLDINGS, HOLDINGS.pack(series)))

    def _count(
        self, series: int, instances: int, size: int, *, next_position: int = 0, next_part: int = 0
    ) -> None:
        holding = self._holding(series)
        holding.next_position = max(holding.next_position, next_position)
        holding.next_part = max(holding.next_part, next_part)
        holding.instances += instances
        holding.logical_bytes += size
        self._txn.put(HOLDINGS, HOLDINGS.pack(series), holding.pack())
        self._totals.instances += instances
        self._totals.logical_bytes += size

    def _require_unpacked(self, series: int, part: int, positions: set[int], blob: bytes) -> None:
        new = read_head(blob)
        for number, present, head in part_blobs(self._txn, series):
            taken = number == part
            if not taken and head.first <= new.last and new.first <= head.last:
                taken = not positions.isdisjoint(decode_part(series, present).positions.tolist())
            if taken:
                msg = f"catalog: part {part} of series {series}: packed already, in part {number}"
                raise CatalogError(msg)

    def _name_of(self, instance: InstanceId) -> str | None:
        found = find_packed(self._txn, self._cache, instance)
        if found is not None:
            return found[1].name(found[2])
        with self._spool() as spool:
            record = spooled_record(spool, instance)
        return None if record is None else spooled_name(record)

    def _forget_versions(self, gone: set[InstanceId]) -> None:
        with self._spool() as spool:
            for instance in gone:
                if spool.get(SPOOLED, spooled_key(instance)) is None:
                    self._txn.delete(VERSIONS, VERSIONS.pack(instance.series, instance.position))

    def _forget_moved(self) -> None:
        """Drops marks of parts whose instances have all left the spool."""
        moving = [key for key, _ in self._txn.scan(MOVING)]
        if not moving:
            return
        with self._spool() as spool:
            for key in moving:
                series, _ = MOVING.numbers(key)
                blob = self._txn.get(PARTS, key)
                positions = [] if blob is None else decode_part(series, blob).positions.tolist()
                if not any(spool.get(SPOOLED, SPOOLED.pack(series, position)) for position in positions):
                    self._txn.delete(MOVING, key)
