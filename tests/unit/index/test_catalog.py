"""What the catalog answers after what was written to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicomfs.errors import CatalogError, CatalogFull, CatalogOutdated, NotFoundError, UsageError
from dicomfs.index import ROOT, Catalog, Change, Counts, PartRef, feed, pair
from dicomfs.index import instances as instances_module
from dicomfs.index.instances import PartCache
from dicomfs.index.keys import META, PARTS
from dicomfs.index.nodes import NUMBER_LIMIT
from dicomfs.index.parts import read_head
from dicomfs.model import ConflictClass, InstanceId, Level, PatientNode
from tests.catalogs import (
    ARCHIVE_ID,
    PATIENT,
    STUDY,
    commit,
    header_key,
    make_catalog,
    part_row,
    series_node,
    spool,
    spool_record,
    uid,
    unspool,
)

FOLDER = Change(Level.SERIES, 1, None)


def _name(position: int) -> str:
    return f"{position + 1:06d}.dcm"


# opening


def test_the_archive_id_stays(tmp_path: Path) -> None:
    make_catalog(tmp_path / "index").close()
    with Catalog.open(tmp_path / "index", readonly=True) as catalog:
        assert catalog.archive_id == ARCHIVE_ID
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700


def test_an_index_is_not_made_over_another(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="already"):
        Catalog.create(catalog.folder, ARCHIVE_ID)


def test_a_missing_index_is_outdated(tmp_path: Path) -> None:
    with pytest.raises(CatalogOutdated, match="recover"):
        Catalog.open(tmp_path)


def test_another_schema_is_refused_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_catalog(tmp_path / "index").close()
    monkeypatch.setattr(pair, "SCHEMA", 2)
    with pytest.raises(CatalogOutdated, match="schema version 1 where 2"):
        Catalog.open(tmp_path / "index")
    monkeypatch.undo()
    with Catalog.open(tmp_path / "index") as catalog:
        assert catalog.patients() == [PATIENT]


def test_a_read_only_catalog_answers_and_refuses_to_write(tmp_path: Path) -> None:
    with make_catalog(tmp_path / "index") as made:
        commit(made, 1, 0)
    with Catalog.open(tmp_path / "index", readonly=True) as catalog:
        assert len(catalog.rows(1)) == 1
        with pytest.raises(CatalogError, match="read-only"), catalog.write():
            pass


def test_the_spools_list_is_thrown_away_after_another_boot_and_the_rest_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_catalog(tmp_path / "index") as catalog:
        commit(catalog, 1, 0)
        spool(catalog, 1, 1)
        mark = catalog.last_change()
        assert not catalog.spool_stale
    (tmp_path / "index" / "spool" / "data.mdb").write_bytes(b"torn")
    monkeypatch.setattr(pair, "boot_id", lambda: "another boot")
    for _ in range(2):
        with Catalog.open(tmp_path / "index") as catalog:
            assert catalog.spool_stale
            assert [row.id.position for row in catalog.rows(1)] == [0]
            assert catalog.changes_since(mark) is None
            assert catalog.last_change() > mark
    with Catalog.open(tmp_path / "index") as catalog:
        spool(catalog, 1, 1)
        with catalog.write_spool() as writer:
            writer.mark_rebuilt()
    with Catalog.open(tmp_path / "index") as catalog:
        assert not catalog.spool_stale
        assert [row.id.position for row in catalog.rows(1)] == [0, 1]


def test_a_snapshot_is_a_catalog_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    commit(catalog, 1, 0, 1)
    catalog.snapshot(tmp_path / "copy")
    commit(catalog, 1, 2)
    with Catalog.open(tmp_path / "copy") as copy:
        assert [row.id.position for row in copy.rows(1)] == [0, 1]
        assert copy.spool_stale


# nodes


def test_nodes_are_found_by_number_identity_and_folder(catalog: Catalog) -> None:
    assert catalog.patients() == [catalog.patient(1)] == [PATIENT]
    assert catalog.studies(1) == [catalog.study(1)] == [STUDY]
    assert catalog.series_of(1) == [series_node(1), series_node(2)]
    assert catalog.series(2) == series_node(2)
    assert catalog.find_patient("HOSP", "P1", "Doe^Jane") == PATIENT
    assert catalog.find_study(1, "1.2.3") == STUDY
    assert catalog.find_series(1, "1.2.3.2") == series_node(2)
    assert catalog.child(Level.PATIENT, 0, PATIENT.folder) == 1
    assert catalog.child(Level.SERIES, 1, series_node(2).folder) == 2


def test_what_is_not_there_is_not_found(catalog: Catalog) -> None:
    assert catalog.find_patient("", "P1", "Doe^Jane") is None
    assert catalog.find_study(2, "1.2.3") is None
    assert not catalog.studies(9)
    assert not catalog.series_of(9)
    assert not catalog.rows(9)
    assert catalog.child(Level.PATIENT, 0, PATIENT.folder.upper()) is None
    assert catalog.folder_taken(Level.PATIENT, 0, PATIENT.folder.upper())
    for ask in (catalog.patient, catalog.study, catalog.series):
        with pytest.raises(NotFoundError):
            ask(9)
        with pytest.raises(NotFoundError):
            ask(-1)


@pytest.mark.parametrize(
    "node",
    [
        replace(PATIENT, name="Other"),
        replace(PATIENT, number=2),
        replace(PATIENT, number=2, name="Other", folder=PATIENT.folder.upper()),
        replace(PATIENT, number=0, name="Other", folder="other"),
        replace(PATIENT, number=NUMBER_LIMIT, name="Other", folder="other"),
    ],
)
def test_a_taken_number_identity_or_folder_name_is_refused(catalog: Catalog, node: PatientNode) -> None:
    with catalog.write() as writer, pytest.raises(CatalogError):
        writer.add_patient(node)
    assert catalog.patients() == [PATIENT]


def test_adding_a_node_again_changes_nothing(catalog: Catalog) -> None:
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.add_patient(PATIENT)
    assert catalog.changes_since(mark) == []
    assert catalog.counts().patients == 1


def test_a_node_needs_its_parent(catalog: Catalog) -> None:
    with catalog.write() as writer, pytest.raises(NotFoundError):
        writer.add_study(replace(STUDY, number=2, patient=7))


def test_the_writers_finders_see_what_it_wrote(catalog: Catalog) -> None:
    other = PatientNode(2, "", "P2", "X\ud800", "p2")
    with catalog.write() as writer:
        writer.add_patient(other)
        assert writer.find_patient("", "P2", "X\ud800") == other
        assert writer.find_study(1, "1.2.3") == STUDY
        assert writer.find_series(1, "1.2.3.1") == series_node(1)
        assert writer.folder_taken(Level.PATIENT, 0, "P2")
        assert catalog.find_patient("", "P2", "X\ud800") is None
    assert catalog.patient(2) == other


def test_reserved_numbers_are_never_given_out_again(catalog: Catalog) -> None:
    with catalog.write() as writer:
        first = writer.reserve(Level.SERIES, 1024)
        assert first == 3
        assert writer.reserve(Level.SERIES, 1) == first + 1024
        writer.raise_counter(Level.SERIES, 5000)
        writer.raise_counter(Level.SERIES, 10)
    assert catalog.next_number(Level.SERIES) == 5000
    with catalog.write() as writer, pytest.raises(CatalogError, match="used up"):
        writer.reserve(Level.SERIES, NUMBER_LIMIT)


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


# the feed


def test_new_nodes_change_their_parents_folder(catalog: Catalog) -> None:
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.add_patient(PatientNode(2, "", "P2", "B", "p2"))
        writer.add_series(series_node(3))
    assert catalog.changes_since(mark) == [
        Change(ROOT, 0, None),
        Change(Level.PATIENT, 2, None),
        Change(Level.STUDY, 1, None),
        Change(Level.SERIES, 3, None),
    ]
    assert catalog.changed_ns(ROOT, 0) == catalog.changed_ns(Level.STUDY, 1) > 0
    assert catalog.changed_ns(Level.STUDY, 99) == 0


def test_changes_of_both_environments_come_once_each(catalog: Catalog) -> None:
    mark = catalog.last_change()
    spool(catalog, 1, 0)
    spool(catalog, 1, 1)
    commit(catalog, 1, 2)
    commit(catalog, 2, 0)
    assert catalog.changes_since(mark) == [FOLDER, Change(Level.SERIES, 2, None)]
    assert catalog.last_change() > mark
    assert catalog.changes_since(catalog.last_change()) == []


def test_writes_that_change_nothing_visible_leave_the_mark(catalog: Catalog) -> None:
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.add_object(header_key(1), 10, "local", 1)
    assert catalog.last_change() == mark


def test_a_mark_older_than_the_feed_or_unknown_means_everything(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_ENTRIES", 3)
    mark = catalog.last_change()
    for position in range(5):
        commit(catalog, 1, position)
    assert catalog.changes_since(mark) is None
    assert catalog.changes_since(catalog.last_change() + 1) is None
    assert catalog.changes_since(0) is None


def test_more_changes_than_are_worth_listing_mean_everything(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LISTED_CHANGES", 2)
    mark = catalog.last_change()
    with catalog.write() as writer:
        for number in range(3, 6):
            writer.add_series(series_node(number))
    assert catalog.changes_since(mark) is None


# objects


def test_objects_carry_their_placements(catalog: Catalog) -> None:
    key = header_key(1)
    with catalog.write() as writer:
        writer.add_object(key, 10, "local", 5)
        writer.add_object(key, 10, "laboratory", 6)
        writer.add_object(key, 10, "local", 7)
        with pytest.raises(CatalogError, match="10 bytes, not 11"):
            writer.add_object(key, 11, "local", 8)
    assert catalog.object(key).tiers == {"local": 7, "laboratory": 6}
    with catalog.write() as writer:
        writer.remove_placement(key, "local")
    assert catalog.object(key).tiers == {"laboratory": 6}
    with catalog.write() as writer:
        writer.set_references(key, [header_key(2)])
        assert catalog.references(key) == []
    assert catalog.references(key) == [header_key(2)]
    with catalog.write() as writer:
        writer.remove_object(key)
    assert catalog.references(key) == []
    with pytest.raises(NotFoundError):
        catalog.object(key)


def test_all_objects_are_listed_over_several_transactions(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.index.catalog._OBJECTS_AT_ONCE", 2)
    with catalog.write() as writer:
        for number in range(4):
            writer.add_object(header_key(number), number, "local", 1)
    assert {record.key: record.size for record in catalog.objects()} == {header_key(n): n for n in range(4)}


def test_intents_last_until_they_are_removed(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.add_intent(header_key(1), "packer 1")
    [intent] = catalog.intents()
    assert (intent.key, intent.owner) == (header_key(1), "packer 1")
    with catalog.write() as writer:
        writer.remove_intent(header_key(1))
        writer.remove_intent(header_key(1))
    assert catalog.intents() == []


# totals and damage


def test_the_recount_goes_on_where_a_transaction_ended(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.index.recount._PARTS_AT_ONCE", 1)
    for position in range(3):
        commit(catalog, 1, position)
    assert catalog.recount() == catalog.counts()
    assert catalog.counts().instances == 3


@pytest.mark.parametrize("damage", [b"", b"\x07\x01", b"\x01\xff"])
def test_a_damaged_record_is_the_catalogs_error(catalog: Catalog, damage: bytes) -> None:
    with catalog._catalog.write() as txn:
        txn.put(META, b"totals", damage)
    with pytest.raises(CatalogError, match="recover"):
        catalog.counts()
