"""Who needs an object, which copies are to go, and what was forgotten or is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index import Catalog
from dicomfs.index.keys import USES
from dicomfs.index.records import Condemned
from dicomfs.model import INSTANCE_LEVEL, InstanceId, Level, ObjectKey, Subject
from tests.catalogs import header_key, make_catalog, part_row, spool, spool_record, uid


def pixel_key(number: int) -> ObjectKey:
    """The key of some pack of frames."""
    return ObjectKey(header_key(1000 + number).replace("header/", "pixel/"))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A header pack with three instances that needs a pack of frames."""
    with make_catalog(tmp_path / "index") as made:
        with made.write() as writer:
            writer.add_object(header_key(1), 10, "local", 1)
            writer.add_object(pixel_key(1), 20, "local", 1)
            writer.set_references(header_key(1), [pixel_key(1)])
            writer.commit_part(1, 0, header_key(1), 0, [part_row(1, n) for n in range(3)])
        yield made
        assert made.recount_uses() == (0, 0)
        assert made.recount() == made.counts()


def test_what_parts_and_header_packs_name_is_used(catalog: Catalog) -> None:
    assert catalog.is_used(header_key(1))
    assert catalog.is_used(pixel_key(1))
    assert not catalog.is_used(pixel_key(2))
    with catalog.write() as writer:
        writer.remove_part(1, 0)
    # The pack goes after the header pack that names it.
    assert (catalog.is_used(header_key(1)), catalog.is_used(pixel_key(1))) == (False, True)
    with catalog.write() as writer:
        writer.remove_object(header_key(1))
    assert not catalog.is_used(pixel_key(1))


def test_a_stand_in_is_used_as_long_as_what_it_stands_for(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.add_object(pixel_key(2), 5, "local", 1)
        writer.stand_in(pixel_key(1), pixel_key(2))
        writer.add_object(pixel_key(3), 4, "local", 1)
        writer.stand_in(pixel_key(1), pixel_key(3))
        writer.stand_in(pixel_key(2), pixel_key(3))
    assert [catalog.is_used(pixel_key(n)) for n in (1, 2, 3)] == [True, False, True]
    with catalog.write() as writer:
        writer.remove_part(1, 0)
        writer.remove_object(header_key(1))
        assert not writer.is_used(pixel_key(3))
        writer.remove_names(pixel_key(3))
        writer.remove_object(pixel_key(3))
    assert list(catalog.objects()) == []
    assert catalog.placed(pixel_key(1)) == pixel_key(1)


def test_an_older_index_learns_who_needs_what(tmp_path: Path, catalog: Catalog) -> None:
    with catalog._catalog.write() as txn:
        for key, _ in list(txn.scan(USES)):
            txn.delete(USES, key)
        txn.put(
            next(table for table in catalog._catalog._tables if table.name == "meta"),
            b"schema",
            bytes((0, 0, 0, 1)),
        )
    assert catalog.recount_uses() == (2, 0)
    with Catalog.open(tmp_path / "index") as upgraded:
        assert upgraded.recount_uses() == (0, 0)
        assert upgraded.is_used(pixel_key(1))


def test_a_condemned_copy_is_reprieved_by_placing_and_by_linking(catalog: Catalog) -> None:
    key = pixel_key(1)
    with catalog.write() as writer:
        writer.condemn(key, "local", 7)
        writer.condemn(key, "laboratory", 8)
        writer.condemn(key, "laboratory", 9)
    assert catalog.condemned() == [Condemned(key, "laboratory", 8), Condemned(key, "local", 7)]
    with catalog.write() as writer:
        writer.add_object(key, 20, "laboratory", 2)
    assert catalog.condemned() == [Condemned(key, "local", 7)]
    with catalog.write() as writer:
        writer.add_object(header_key(2), 1, "local", 1)
        writer.set_references(header_key(2), [key])
    assert catalog.condemned() == []


def test_what_is_gone_cannot_be_linked(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError), catalog.write() as writer:
        writer.set_references(header_key(2), [pixel_key(2)])


def test_forgotten_instances_leave_their_part_and_never_come_back(catalog: Catalog) -> None:
    spool(catalog, 1, 3)
    with catalog.write() as writer:
        writer.forget([InstanceId(1, 1), InstanceId(1, 3)])
    with catalog.write_spool() as spooled:
        spooled.remove([InstanceId(1, 3)])
    assert [row.id.position for row in catalog.rows(1)] == [0, 2]
    assert catalog.by_uid(uid(1, 1)) == catalog.by_uid(uid(1, 3)) == []
    assert (catalog.part_of(InstanceId(1, 0)).row, catalog.part_of(InstanceId(1, 2)).row) == (0, 2)
    assert catalog.places_in(header_key(1)) == {0: [0, 2]}
    assert catalog.next_position(1) == 4
    assert catalog.is_forgotten(InstanceId(1, 3))
    with catalog.write() as writer:
        writer.commit_part(1, 1, header_key(2), 0, [part_row(1, n) for n in (3, 4)])
    assert [row.id.position for row in catalog.rows(1)] == [0, 2, 4]
    assert catalog.places_in(header_key(2)) == {0: [1]}
    with catalog.write() as writer:
        writer.forget([InstanceId(1, 0), InstanceId(1, 2)])
    assert not catalog.is_used(header_key(1))
    with catalog.write() as writer:
        writer.commit_part(1, 2, header_key(3), 0, [part_row(1, 2)])
    assert not catalog.is_used(header_key(3))
    assert catalog.next_part(1) == 3


def test_a_forgotten_instance_may_not_be_listed_by_the_spool_again(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.forget([InstanceId(1, 7)])
    with pytest.raises(CatalogError, match="forgotten"), catalog.write_spool() as spooled:
        spooled.add(spool_record(1, 7))


@pytest.mark.parametrize(
    "subject",
    [
        Subject(Level.PATIENT, 1),
        Subject(Level.STUDY, 1),
        Subject(Level.SERIES, 1),
        Subject(INSTANCE_LEVEL, 1, 1),
    ],
)
def test_a_hold_keeps_what_is_below_it_until_it_is_released(catalog: Catalog, subject: Subject) -> None:
    with catalog.write() as writer:
        writer.hold(subject, "trial")
    [hold] = catalog.holds()
    assert (hold.subject, hold.reason) == (subject, "trial")
    assert catalog.hold_on(InstanceId(1, 1)) == hold
    assert catalog.hold_on(InstanceId(9, 1)) is None
    with catalog.write() as writer:
        writer.release(subject)
    assert catalog.hold_on(InstanceId(1, 1)) is None
