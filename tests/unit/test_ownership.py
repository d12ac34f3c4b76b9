"""Whose a tier is: one archive folder at a time, and never two archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.errors import TierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.ownership import Owner, Ownership, holder_of
from dicomfs.tiers.memory import MemoryTier
from tests.clocks import Clock

ARCHIVE, OTHER = b"a" * 16, b"b" * 16


@pytest.fixture
def tier() -> MemoryTier:
    return MemoryTier("laboratory")


def test_a_tier_that_nobody_used_becomes_that_of_who_writes_first(tier: MemoryTier) -> None:
    mine = Ownership(tier, ARCHIVE, "one")
    assert mine.current() is None
    mine.require()
    assert mine.current() == Owner(1, ARCHIVE, "one")
    Ownership(tier, ARCHIVE, "one").require()


def test_another_archive_is_refused_for_good(tier: MemoryTier) -> None:
    Ownership(tier, ARCHIVE, "one").require()
    other = Ownership(tier, OTHER, "two")
    with pytest.raises(UsageError, match="belongs to another archive"):
        other.require()
    with pytest.raises(UsageError, match="belongs to another archive"):
        other.claim()


def test_another_folder_of_the_archive_writes_only_after_its_claim(tier: MemoryTier) -> None:
    clock = Clock()
    first, second = Ownership(tier, ARCHIVE, "one", clock), Ownership(tier, ARCHIVE, "two")
    first.require()
    with pytest.raises(UsageError, match="tier claim laboratory"):
        second.require()
    assert second.claim() == Owner(2, ARCHIVE, "two")
    second.require()
    clock.now = 61.0
    with pytest.raises(UsageError, match="tier claim laboratory"):
        first.require()


def test_claiming_what_one_has_changes_nothing(tier: MemoryTier) -> None:
    mine = Ownership(tier, ARCHIVE, "one")
    mine.require()
    assert mine.claim().epoch == 1
    assert len(list(tier.list(""))) == 1


def test_who_looks_first_after_two_claims_sees_the_later_one(tier: MemoryTier) -> None:
    for holder in ("one", "two", "three"):
        Ownership(tier, ARCHIVE, holder).claim()
    assert Ownership(tier, ARCHIVE, "one").current() == Owner(3, ARCHIVE, "three")


def test_an_owner_that_cannot_be_read_is_an_error_with_advice(tier: MemoryTier) -> None:
    data = b"{}"
    tier.put(
        ObjectKey("owner/0000000000000001"),
        data,
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    )
    with pytest.raises(TierError, match="tier claim"):
        Ownership(tier, ARCHIVE, "one").require()


def test_a_folder_keeps_its_identity(tmp_path: Path) -> None:
    first = holder_of(tmp_path / "holder")
    assert len(first) == 32
    assert holder_of(tmp_path / "holder") == first
    assert holder_of(tmp_path / "other") != first
