"""Whole objects in files of ours: what came is what is there, and a full disk is told as ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dicomfs.errors import TierFull
from dicomfs.model import ObjectKey
from dicomfs.tiers.fetching import digest_of, fetch_into, unnamed_file
from dicomfs.tiers.memory import MemoryTier
from tests.archives import fill, small_disk

DATA = os.urandom(3 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = ObjectKey(f"pixel/{DIGEST[:2]}/{DIGEST}")


@pytest.fixture
def tier() -> MemoryTier:
    made = MemoryTier("laboratory")
    made.put(KEY, DATA, DIGEST)
    return made


def test_the_file_holds_what_came_and_has_no_name(tier: MemoryTier, tmp_path: Path) -> None:
    with unnamed_file(tmp_path / "fetched") as (descriptor, path):
        assert fetch_into(descriptor, tier, KEY, len(DATA)) == DIGEST
        assert path.read_bytes() == DATA
        assert list((tmp_path / "fetched").iterdir()) == []


def test_an_object_of_another_size_has_no_digest(tier: MemoryTier) -> None:
    assert digest_of(tier, KEY, len(DATA)) == DIGEST
    assert digest_of(tier, KEY, len(DATA) - 1) == ""


def test_a_full_disk_is_told_as_ours_and_nothing_as_fetched(tier: MemoryTier, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        fill(disk, 1 << 20)
        with unnamed_file(disk) as (descriptor, _), pytest.raises(TierFull) as told:
            fetch_into(descriptor, tier, KEY, len(DATA))
    assert told.value.tier == "local"


def test_where_no_file_can_be_made_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TierFull), unnamed_file(tmp_path / "file" / "fetched", KEY):
        pass
