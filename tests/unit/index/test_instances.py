"""Instances in the catalog: packed, spooled and in versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomfs.errors import CatalogError, CatalogFull, NotFoundError
from dicomfs.index import Catalog, Change, Counts, PartRef
from dicomfs.index import instances as instances_module
from dicomfs.index.instances import PartCache
from dicomfs.index.keys import PARTS
from dicomfs.index.parts import read_head
from dicomfs.model import ConflictClass, InstanceId, Level
from tests.catalogs import (
    commit,
    header_key,
    part_row,
    spool,
    spool_record,
    uid,
    unspool,
)

FOLDER = Change(Level.SERIES, 1, None)


def _name(position: int) -> str:
    return f"{position + 1:06d}.dcm"


# instances


def test_packed_and_spooled_instances_are_listed_together_by_name(catalog: Catalog) -> None:
    commit(catalog, 1, 2, 0)
    spool(catalog, 1, 1, 3)
    rows = catalog.rows(1)
    assert [(row.name, row.spooled) for row in rows] == [
        (_name(0), False),
        (_name(1), True),
        (_name(2), False),
        (_name(3), True),
    ]
    for row in rows:
        source = part_row(1, row.id.position)
        assert (row.size, row.mtime_ns, row.sha256_start) == (source.size, source.mtime_ns, source.sha256[:8])
        assert catalog.row(row.id) == catalog.row_named(1, row.name) == row
        assert catalog.by_uid(row.sop_instance_uid) == [row.id]


def test_unknown_instances_are_not_found(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 2)
    with pytest.raises(NotFoundError):
        catalog.row(InstanceId(1, 1))
    assert catalog.row_named(1, _name(1)) is None
    assert catalog.row_named(1, "notes.txt") is None
    assert catalog.row_named(1, _name(0), version=1) is None
    assert catalog.by_uid("1.2.3") == []
    assert catalog.spooled(InstanceId(1, 0)) is None


def test_moving_an_instance_into_a_part_changes_only_where_it_lies(catalog: Catalog) -> None:
    spool(catalog, 1, 0, 1)
    before, mark, changed = catalog.rows(1), catalog.last_change(), catalog.changed_ns(Level.SERIES, 1)
    counts = catalog.counts()
    commit(catalog, 1, 0, 1)
    moved = [replace(row, spooled=False) for row in before]
    assert catalog.rows(1) == moved
    assert catalog.counts() == catalog.recount() == counts
    assert catalog.by_uid(uid(1, 1)) == [InstanceId(1, 1)]
    unspool(catalog, 1, 0, 1)
    assert catalog.rows(1) == moved
    assert catalog.counts() == catalog.recount() == replace(counts, spool_instances=0, spool_bytes=0)
    assert catalog.changes_since(mark) == []
    assert catalog.changed_ns(Level.SERIES, 1) == changed


def test_marks_of_moving_parts_go_once_the_spool_has_let_them_go(catalog: Catalog) -> None:
    spool(catalog, 1, 0, 1)
    commit(catalog, 1, 0, 1)
    unspool(catalog, 1, 0)
    commit(catalog, 2, 0)
    assert catalog.counts() == catalog.recount()
    unspool(catalog, 1, 1)
    commit(catalog, 2, 1)
    assert catalog.counts() == catalog.recount() == Counts(1, 1, 2, 4, 4002, 0, 0)


def test_part_of_names_pack_part_and_row(catalog: Catalog) -> None:
    commit(catalog, 1, 5, 3, header=7)
    spool(catalog, 1, 9)
    assert catalog.part_of(InstanceId(1, 3)) == PartRef(header_key(7), 0, 1)
    with pytest.raises(NotFoundError, match="packed instance: 1/9"):
        catalog.part_of(InstanceId(1, 9))


def test_an_instance_is_packed_once(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 2)
    with pytest.raises(CatalogError, match="packed already"):
        commit(catalog, 1, 1, 2)
    commit(catalog, 1, 1)
    with catalog.write() as writer, pytest.raises(CatalogError, match="packed already"):
        writer.commit_part(1, 0, header_key(1), 0, [part_row(1, 9)])
    assert catalog.counts().instances == 3


def test_a_part_needs_its_series(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        commit(catalog, 9, 0)


def test_a_part_can_be_replaced_without_any_visible_change(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 1, header=1)
    before, mark = catalog.rows(1), catalog.last_change()
    with catalog.write() as writer:
        writer.remove_part(1, 0)
        assert writer.next_part(1) == 1
        writer.commit_part(1, 1, header_key(2), 4, [part_row(1, 1), part_row(1, 0)])
    assert catalog.rows(1) == before
    assert catalog.part_of(InstanceId(1, 0)) == PartRef(header_key(2), 4, 1)
    assert catalog.changes_since(mark) == []
    assert catalog.counts() == catalog.recount()


def test_a_removed_parts_instances_are_gone_and_their_positions_spent(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 1)
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.remove_part(1, 0)
    assert catalog.rows(1) == []
    assert catalog.by_uid(uid(1, 0)) == []
    changes = catalog.changes_since(mark)
    assert changes is not None
    assert {FOLDER, Change(Level.SERIES, 1, _name(0)), Change(Level.SERIES, 1, _name(1))} == set(changes)
    assert catalog.next_position(1) == 2
    with catalog.write() as writer, pytest.raises(NotFoundError):
        writer.remove_part(1, 0)


def test_a_part_written_and_removed_in_one_block_leaves_no_trace(catalog: Catalog) -> None:
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.commit_part(1, 0, header_key(1), 0, [part_row(1, 0)])
        writer.remove_part(1, 0)
    assert catalog.changes_since(mark) == []
    assert catalog.counts() == catalog.recount()


def test_one_uid_in_several_series_is_found_in_all(catalog: Catalog) -> None:
    commit(catalog, 1, 0)
    with catalog.write_spool() as writer:
        writer.add(replace(spool_record(2, 0), sop_instance_uid=uid(1, 0)))
    assert catalog.by_uid(uid(1, 0)) == [InstanceId(1, 0), InstanceId(2, 0)]


def test_another_uid_with_the_same_hash_is_not_taken_for_it(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.index.uids._hash", lambda _: b"sixsix")
    commit(catalog, 1, 0, 1)
    spool(catalog, 2, 0)
    assert catalog.by_uid(uid(1, 1)) == [InstanceId(1, 1)]
    assert catalog.by_uid(uid(2, 0)) == [InstanceId(2, 0)]
    assert catalog.by_uid("1.9") == []


def test_slices_are_ordered_by_their_column_not_by_acceptance(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 1)
    commit(catalog, 1, 2)
    assert catalog.slice_order(1) == [InstanceId(1, 2), InstanceId(1, 1), InstanceId(1, 0)]
    assert [info.rows for info in catalog.parts(1)] == [2, 1]


def test_decoded_parts_are_dropped_least_recently_used_first(catalog: Catalog) -> None:
    commit(catalog, 1, 0, 1)
    commit(catalog, 1, 2, 3)
    commit(catalog, 1, 4)
    cache = PartCache(rows=3)
    with catalog._catalog.read() as txn:
        blobs = [txn.get(PARTS, PARTS.pack(1, part)) for part in range(3)]
    taken = [cache.decoded(1, part, blob, read_head(blob)) for part, blob in enumerate(blobs) if blob]
    again = [cache.decoded(1, part, blob, read_head(blob)) for part, blob in enumerate(blobs) if blob]
    assert taken[0] is not again[0]
    assert taken[2] is not again[2]
    assert instances_module.CACHED_ROWS > 100_000


# the spool


def test_the_spool_tells_its_series_and_records(catalog: Catalog) -> None:
    spool(catalog, 2, 0)
    spool(catalog, 1, 4, 2)
    assert catalog.spooled_series() == [1, 2]
    assert [record.id for record in catalog.spooled_of(1)] == [InstanceId(1, 2), InstanceId(1, 4)]
    assert catalog.spooled(InstanceId(1, 4)) == spool_record(1, 4)
    assert catalog.spooled_of(2) == [spool_record(2, 0)]


def test_the_same_record_again_changes_nothing_and_another_is_refused(catalog: Catalog) -> None:
    spool(catalog, 1, 0)
    counts = catalog.counts()
    spool(catalog, 1, 0)
    assert catalog.counts() == catalog.recount() == counts
    with catalog.write_spool() as writer, pytest.raises(CatalogError, match="taken"):
        writer.add(replace(spool_record(1, 0), size=1))


@pytest.mark.parametrize(
    "record",
    [
        replace(spool_record(1, 0), id=InstanceId(1, 2**23)),
        replace(spool_record(1, 0), size=-1),
        replace(spool_record(1, 0), sha256=b"short"),
        replace(spool_record(1, 0), name_level=5),
    ],
)
def test_impossible_spool_records_are_refused(catalog: Catalog, record: object) -> None:
    with catalog.write_spool() as writer, pytest.raises(ValueError, match=r".+"):
        writer.add(record)  # type: ignore[arg-type]  # parametrize widens it


def test_positions_never_go_back(catalog: Catalog) -> None:
    with catalog.write_spool() as writer:
        assert writer.next_position(1) == 0
        writer.add(spool_record(1, 0))
        assert writer.next_position(1) == 1
    commit(catalog, 1, 6)
    assert catalog.next_position(1) == 7
    spool(catalog, 1, 7)
    unspool(catalog, 1, 7)
    assert catalog.next_position(1) == 8
    with catalog.write() as writer:
        writer.raise_position(1, 20)
        writer.raise_position(1, 3)
    assert catalog.next_position(1) == 20
    with catalog.write() as writer:
        writer.raise_position(1, 2**23)
    with catalog.write_spool() as spooler, pytest.raises(CatalogFull, match="no positions"):
        spooler.next_position(1)


def test_giving_a_spooled_instance_up_is_a_visible_change(catalog: Catalog) -> None:
    spool(catalog, 1, 0)
    mark = catalog.last_change()
    unspool(catalog, 1, 0, 5)
    assert catalog.changes_since(mark) == [FOLDER, Change(Level.SERIES, 1, _name(0))]
    assert catalog.rows(1) == []
    assert catalog.by_uid(uid(1, 0)) == []


# versions


@pytest.mark.parametrize("packed", [True, False])
def test_a_superseded_version_leaves_its_name_to_the_newer_one(catalog: Catalog, packed: bool) -> None:
    (commit if packed else spool)(catalog, 1, 0)
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.set_version(InstanceId(1, 0), 1, ConflictClass.ATTRIBUTES)
        writer.set_version(InstanceId(1, 1), 0, ConflictClass.ATTRIBUTES)
    with catalog.write_spool() as spooler:
        spooler.add(replace(spool_record(1, 1), number=1))
    rows = catalog.rows(1)
    assert [(row.id.position, row.name, row.version) for row in rows] == [(1, _name(0), 0), (0, _name(0), 1)]
    assert [row.conflict for row in rows] == [ConflictClass.ATTRIBUTES] * 2
    assert catalog.row_named(1, _name(0)) == rows[0]
    assert catalog.row_named(1, _name(0), version=1) == rows[1] == catalog.row(InstanceId(1, 0))
    changes = catalog.changes_since(mark)
    assert changes is not None
    assert Change(Level.SERIES, 1, _name(0)) in changes
    assert catalog.versioned_series() == [1]
    assert 1 in catalog.versioned_series()
    assert 2 not in catalog.versioned_series()


def test_a_version_can_be_taken_back(catalog: Catalog) -> None:
    commit(catalog, 1, 0)
    with catalog.write() as writer:
        writer.set_version(InstanceId(1, 0), 1, ConflictClass.PIXELS)
    with catalog.write() as writer:
        writer.set_version(InstanceId(1, 0), 0, ConflictClass.NONE)
    assert catalog.versioned_series() == []
    assert catalog.row(InstanceId(1, 0)).version == 0
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.set_version(InstanceId(1, 0), 0, ConflictClass.NONE)
    assert catalog.changes_since(mark) == []
