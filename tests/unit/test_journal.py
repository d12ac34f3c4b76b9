"""The journal on a tier: numbered, in order, never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.errors import DamagedError, FormatError, TierError
from dicomfs.format.journal import CountersReserved
from dicomfs.journal import Journal
from dicomfs.tiers.folder import FolderTier
from tests.archives import flip
from tests.faulty_tier import FaultyTier

ARCHIVE = bytes(16)


def entry(number: int) -> CountersReserved:
    return CountersReserved(patient=number, study=number, series=number)


@pytest.fixture
def tier(tmp_path: Path) -> FolderTier:
    return FolderTier("local", tmp_path)


def read_all(journal: Journal) -> list[int]:
    found = [one for key in journal.list() for one in journal.read(key).entries]
    return [one.patient for one in found if isinstance(one, CountersReserved)]


def test_entries_come_back_in_the_order_they_were_written(tier: FolderTier) -> None:
    journal = Journal(tier, ARCHIVE)
    for number in range(1, 20):
        journal.append([entry(number)])
    assert read_all(Journal(tier, ARCHIVE)) == list(range(1, 20))
    assert journal.gaps() == []


def test_two_writers_write_over_nothing(tier: FolderTier) -> None:
    one, two = Journal(tier, ARCHIVE), Journal(tier, ARCHIVE)
    for number in range(0, 10, 2):
        one.append([entry(number)])
        two.append([entry(number + 1)])
    assert read_all(one) == list(range(10))


def test_a_write_that_fails_leaves_no_gap(tier: FolderTier) -> None:
    faulty = FaultyTier(tier)
    journal = Journal(faulty, ARCHIVE)
    journal.append([entry(1)])
    faulty.faults = [TierError("local", "", "broken")]
    with pytest.raises(TierError):
        journal.append([entry(2)])
    journal.append([entry(3)])
    assert read_all(journal) == [1, 3]
    assert journal.gaps() == []


def test_a_journal_that_went_on_without_its_last_object_is_not_taken_for_shipped(tmp_path: Path) -> None:
    tiers = [FolderTier(name, tmp_path / name) for name in ("local", "laboratory")]
    for tier in tiers:
        tier.path.mkdir()
    here, there = (Journal(tier, ARCHIVE) for tier in tiers)
    for number in (1, 2):
        here.append([entry(number)])
    assert (here.ship(tiers[1]), here.ship(tiers[1])) == (2, 0)
    tiers[0].delete(here.list()[-1])
    again = Journal(tiers[0], ARCHIVE)
    for number in (3, 4):
        again.append([entry(number)])
        with pytest.raises(TierError, match="decisions made since do not get there"):
            again.ship(tiers[1])
    assert read_all(there) == [1, 2]


def test_a_damaged_object_elsewhere_does_not_stop_shipping(tmp_path: Path) -> None:
    tiers = [FolderTier(name, tmp_path / name) for name in ("local", "laboratory")]
    for tier in tiers:
        tier.path.mkdir()
    here = Journal(tiers[0], ARCHIVE)
    here.append([entry(1)])
    here.ship(tiers[1])
    flip(tiers[1].path / here.list()[0], 20)
    here.append([entry(2)])
    assert here.ship(tiers[1]) == 1


def test_what_is_missing_in_between_is_told(tier: FolderTier) -> None:
    journal = Journal(tier, ARCHIVE)
    for number in range(9):
        journal.append([entry(number)])
    keys = journal.list()
    for index in (0, 4, 5):
        tier.delete(keys[index])
    first, second = journal.gaps()
    assert first == f"{keys[0]}: missing"
    assert second == f"{keys[4]}: missing, and all up to {keys[5]}"


def test_strange_names_and_numbers_without_end_are_passed_over_or_told(
    tier: FolderTier, tmp_path: Path
) -> None:
    journal = Journal(tier, ARCHIVE)
    journal.append([entry(1)])
    (tmp_path / "journal" / "README").write_text("not mine")
    (tmp_path / "journal" / "0000000000000002 (copy)").write_text("not mine")
    Journal(tier, ARCHIVE).append([entry(2)])
    assert read_all(journal) == [1, 2]
    (tmp_path / "journal" / ("f" * 16)).write_text("not mine")
    assert len(journal.gaps()) == 1


def test_an_object_under_another_number_is_damage(tier: FolderTier, tmp_path: Path) -> None:
    journal = Journal(tier, ARCHIVE)
    journal.append([entry(1)])
    (key,) = journal.list()
    (tmp_path / key).rename(tmp_path / "journal" / ("0" * 15 + "7"))
    (moved,) = journal.list()
    with pytest.raises(DamagedError, match="holds journal object 1"):
        journal.read(moved)


def test_an_object_that_is_no_journal_is_damage(tier: FolderTier, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    for data in (b"", b"x", bytes(4096)):
        (tmp_path / "journal" / ("0" * 16)).write_bytes(data)
        journal = Journal(tier, ARCHIVE)
        (key,) = journal.list()
        with pytest.raises(FormatError):
            journal.read(key)
