"""What the catalog answers after what was written to it; nodes and instances have files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.errors import CatalogError, CatalogOutdated, NotFoundError, UsageError
from dicomfs.index import ROOT, Catalog, Change, feed, pair
from dicomfs.index.keys import CATALOG_TABLES, META
from dicomfs.model import Level, ObjectKey, PatientNode
from tests.catalogs import (
    ARCHIVE_ID,
    PATIENT,
    add_nodes,
    commit,
    header_key,
    make_catalog,
    series_node,
    spool,
)

FOLDER = Change(Level.SERIES, 1, None)
OBJECT = ObjectKey("pixel/ab/" + "ab" * 32)


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
    monkeypatch.setattr(pair, "SCHEMA", pair.SCHEMA + 1)
    with pytest.raises(CatalogOutdated, match=f"schema version {pair.SCHEMA - 1} where {pair.SCHEMA}"):
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
        with pytest.raises(NotFoundError):
            writer.set_references(key, [header_key(2)])
        writer.set_references(key, [header_key(2)], may_be_missing=True)
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


def test_an_index_of_the_first_schema_gets_the_tables_that_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(pair, "SCHEMA", 1)
        older.setattr(pair, "CATALOG_TABLES", [table for table in CATALOG_TABLES if table.since == 1])
        Catalog.create(tmp_path / "index", ARCHIVE_ID).close()
    with Catalog.open(tmp_path / "index") as catalog:
        assert catalog.pinned_series() == set()
        assert (catalog.used(), catalog.holds(), catalog.condemned()) == ({}, [], [])
        add_nodes(catalog)
        commit(catalog, 1, 0)
        (part,) = catalog.parts(1)
        assert catalog.needs(1) == {part: [part.header_key]}
        with catalog.write() as writer:
            writer.set_pinned(1, pinned=True)
            writer.set_needs(1, part.part, [OBJECT])
        assert catalog.pinned_series() == {1}
        assert catalog.needs(1) == {part: [part.header_key, OBJECT]}


def test_an_older_index_on_a_disk_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(pair, "SCHEMA", 2)
        Catalog.create(tmp_path / "index", ARCHIVE_ID).close()
    with pytest.raises(CatalogOutdated, match="open it once where it can be written"):
        Catalog.open(tmp_path / "index", readonly=True)
    Catalog.open(tmp_path / "index").close()
    Catalog.open(tmp_path / "index", readonly=True).close()


def test_when_objects_were_read_is_known_of_known_objects(tmp_path: Path) -> None:
    with make_catalog(tmp_path / "index") as catalog:
        with catalog.write() as writer:
            writer.add_object(OBJECT, 10, "local", 1)
            writer.note_used({OBJECT: 5, ObjectKey("pixel/00/" + "00" * 32): 6})
        assert catalog.used() == {OBJECT: 5}
        with catalog.write() as writer:
            writer.remove_object(OBJECT)
        assert catalog.used() == {}
