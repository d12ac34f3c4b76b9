"""A pack and its twins are one to all who go by names: whichever of them is there, and whatever goes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.errors import NotFoundError
from dicomfs.index import Catalog
from dicomfs.index.writer import CatalogWriter
from dicomfs.model import ObjectKey
from tests.catalogs import header_key, make_catalog, part_row
from tests.unit.index.test_uses import pixel_key

PACK, TWIN, OTHER = pixel_key(1), pixel_key(2), pixel_key(3)
MEMORY = Path("/dev/shm")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A header pack that needs a pack, which has a twin on another tier."""
    with make_catalog(tmp_path / "index") as made:
        with made.write() as writer:
            writer.add_object(PACK, 20, "local", 1, "fast")
            writer.add_object(header_key(1), 10, "local", 1)
            writer.set_references(header_key(1), [PACK])
            writer.commit_part(1, 0, header_key(1), 0, [part_row(1, n) for n in range(3)])
            writer.set_needs(1, 0, [PACK])
            writer.add_object(TWIN, 8, "external", 2, "dense")
            writer.add_twin(TWIN, PACK)
        yield made
        assert made.broken_twins() == []
        assert made.recount_uses() == (0, 0)


def members(catalog: Catalog, key: ObjectKey) -> list[ObjectKey]:
    family = catalog.family(key)
    return [] if family is None else [one.key for one in family.members]


def test_a_family_is_found_by_each_of_its_keys_and_counted_as_one(catalog: Catalog) -> None:
    assert members(catalog, PACK) == members(catalog, TWIN) == [PACK, TWIN]
    assert catalog.placed(TWIN) == catalog.placed(PACK) == PACK
    assert {record.key: set(record.tiers) for record in catalog.held()} == {
        PACK: {"local", "external"},
        header_key(1): {"local"},
    }
    assert {record.key: set(record.tiers) for record in catalog.objects()}[TWIN] == {"external"}
    family = catalog.family(PACK)
    assert family is not None
    assert [family.on(name) and family.on(name).size for name in ("local", "external")] == [20, 8]  # type: ignore[union-attr]


def test_a_twin_is_needed_as_long_as_its_pack(catalog: Catalog) -> None:
    assert catalog.is_used(TWIN)
    with catalog.write() as writer:
        writer.remove_part(1, 0)
        writer.remove_object(header_key(1))
    assert not catalog.is_used(TWIN)
    assert not catalog.is_used(PACK)


def test_with_its_last_copy_a_pack_leaves_its_place_to_a_twin(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.note_used({PACK: 77})
        writer.remove_placement(PACK, "local")
    assert members(catalog, PACK) == members(catalog, TWIN) == [TWIN]
    assert (catalog.placed(PACK), catalog.has_object(PACK)) == (TWIN, False)
    assert (catalog.is_used(TWIN), catalog.used()) == (True, {TWIN: 77})
    assert [keys[1:] for keys in catalog.needs(1).values()] == [[TWIN]]
    with catalog.write() as writer:
        writer.add_object(PACK, 20, "local", 5, "fast")
        writer.add_twin(PACK, TWIN)
    assert members(catalog, PACK) == [TWIN, PACK]
    assert catalog.is_used(PACK)
    assert catalog.is_used(TWIN)


def test_with_its_last_copy_a_twin_is_forgotten(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.remove_placement(TWIN, "external")
    assert members(catalog, PACK) == [PACK]
    assert catalog.find_object(TWIN) is None


def test_a_pack_that_is_moved_may_stay_where_another_profile_is_wanted(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.add_object(PACK, 20, "laboratory", 1)
        writer.add_object(OTHER, 12, "local", 3, "archive")
        writer.succeed(PACK, OTHER, kept={"laboratory"})
    assert members(catalog, PACK) == [OTHER, TWIN, PACK]
    held = catalog.find_held(OTHER)
    assert held is not None
    assert held.tiers.keys() == {"local", "laboratory", "external"}
    assert all(map(catalog.is_used, (PACK, TWIN, OTHER)))
    # Its name is needed, even when it goes.
    with catalog.write() as writer:
        writer.remove_placement(PACK, "laboratory")
    assert (catalog.placed(PACK), members(catalog, PACK)) == (OTHER, [OTHER, TWIN])
    with catalog.write() as writer:
        writer.remove_placement(OTHER, "local")
    assert [catalog.placed(key) for key in (PACK, OTHER, TWIN)] == [TWIN] * 3


def test_a_twin_that_comes_near_leads_its_family(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.lead(TWIN)
        writer.lead(TWIN)
    assert members(catalog, PACK) == [TWIN, PACK]
    assert all(map(catalog.is_used, (PACK, TWIN)))
    with catalog.write() as writer:
        writer.remove_placement(PACK, "local")
    assert (catalog.placed(PACK), members(catalog, PACK)) == (TWIN, [TWIN])


def test_what_nobody_needs_goes_whole(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.remove_part(1, 0)
        writer.remove_object(header_key(1))
        writer.condemn(PACK, "local", 0)
        writer.condemn(TWIN, "external", 0)
        assert writer.let_go(PACK, "local")
        assert writer.let_go(TWIN, "external")
    assert list(catalog.objects()) == []
    assert catalog.family(PACK) is None


def test_there_is_no_twin_of_what_nobody_knows(catalog: Catalog) -> None:
    def add() -> None:
        with catalog.write() as writer:
            writer.add_object(OTHER, 12, "local", 3)
            writer.add_twin(OTHER, pixel_key(9))

    with pytest.raises(NotFoundError):
        add()
    assert catalog.find_object(OTHER) is None


_TIERS = ("local", "laboratory", "external")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("twin"), st.sampled_from(_TIERS)),
        st.tuples(st.just("evict"), st.sampled_from(_TIERS)),
        st.tuples(st.just("spread"), st.sampled_from(_TIERS)),
        st.tuples(st.just("lead"), st.integers(0, 9)),
        st.tuples(st.just("move"), st.sets(st.sampled_from(_TIERS))),
    ),
    max_size=14,
)


class Moves:
    """A pack whose family is changed; every number is a pack of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.made = catalog, 1
        with catalog.write() as writer:
            writer.add_object(PACK, 20, "local", 1)
            writer.add_object(header_key(1), 10, "local", 1)
            writer.set_references(header_key(1), [PACK])

    def new(self, writer: CatalogWriter, tier: str) -> ObjectKey:
        self.made += 1
        writer.add_object(pixel_key(self.made), self.made, tier, self.made)
        return pixel_key(self.made)

    def twin(self, tier: str) -> None:
        with self.catalog.write() as writer:
            writer.add_twin(self.new(writer, tier), PACK)

    def evict(self, tier: str) -> None:
        family = self.catalog.family(PACK)
        assert family is not None
        if family.tiers.keys() - {tier}:
            with self.catalog.write() as writer:
                for one in family.members:
                    if tier in one.tiers:
                        writer.remove_placement(one.key, tier)

    def spread(self, tier: str) -> None:
        family = self.catalog.family(PACK)
        assert family is not None
        with self.catalog.write() as writer:
            writer.add_object(family.members[-1].key, family.members[-1].size, tier, 9)

    def lead(self, choice: int) -> None:
        family = self.catalog.family(PACK)
        assert family is not None
        with self.catalog.write() as writer:
            writer.lead(family.members[choice % len(family.members)].key)

    def move(self, kept: set[str]) -> None:
        pack = self.catalog.placed(PACK)
        with self.catalog.write() as writer:
            writer.succeed(pack, self.new(writer, "local"), kept=kept - {"local"})


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_whatever_moves_the_first_name_leads_to_a_family_that_is_whole(
    steps: list[tuple[str, object]],
) -> None:
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    with contextlib.ExitStack() as held:
        held.callback(shutil.rmtree, folder)
        moves = Moves(held.enter_context(make_catalog(folder / "index")))
        for name, argument in steps:
            getattr(moves, name)(argument)
            catalog = moves.catalog
            family = catalog.family(PACK)
            assert family is not None
            assert all(one.tiers and catalog.is_used(one.key) for one in family.members)
            assert [one.key for one in family.members if one.twin_of is None] == [catalog.placed(PACK)]
            # All that is known but the header pack is in the family: nothing was forgotten in between.
            known = {record.key for record in catalog.objects()} - {header_key(1)}
            assert known == {one.key for one in family.members}
            assert (catalog.broken_twins(), catalog.recount_uses()) == ([], (0, 0))
