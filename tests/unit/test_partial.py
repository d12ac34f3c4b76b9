"""Pieces of remote objects: nothing is fetched twice, neighbours together, what is cut short is an error."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicomfs.errors import TierError, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.partial import BLOCK, PartialObject, PartialObjects
from dicomfs.tiers.base import ByteRange, Tier, TierTraits
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.wrapper import TierWrapper

DATA = random.Random(1).randbytes(40 * BLOCK + 17)
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = ObjectKey(f"pixel/{DIGEST[:2]}/{DIGEST}")


class Asked(TierWrapper):
    """Notes every range; fails, waits or cuts short when told to."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self.range_cost = 0
        self.ranges: list[ByteRange] = []
        self.faults: list[TierError] = []
        self.short = 0
        self.gate: threading.Event | None = None

    @property
    def traits(self) -> TierTraits:
        return replace(self._inner.traits, range_cost_bytes=self.range_cost)

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self.ranges.append(wanted)
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.faults:
            raise self.faults.pop()
        return self._inner.get_range(key, wanted)[: wanted.length - self.short]


@pytest.fixture
def tier() -> Asked:
    memory = MemoryTier()
    memory.put(KEY, DATA, DIGEST)
    return Asked(memory)


@pytest.fixture
def partial(tier: Asked, tmp_path: Path) -> PartialObject:
    return PartialObject(tier, KEY, len(DATA), tmp_path)


def test_any_range_is_that_of_the_object(partial: PartialObject) -> None:
    chance = random.Random(2)
    for _ in range(200):
        offset, length = chance.randrange(len(DATA) + 5), chance.randrange(3 * BLOCK)
        assert partial.read(offset, length) == DATA[offset : offset + length]


def test_each_byte_is_asked_for_once(tier: Asked, partial: PartialObject) -> None:
    partial.read(5 * BLOCK, 10)
    partial.read(2 * BLOCK, 6 * BLOCK)
    assert partial.fill(lambda: False)
    assert partial.complete
    assert sum(one.length for one in tier.ranges) == len(DATA) == partial.fetched
    assert partial.sha256() == DIGEST


def test_neighbours_are_asked_for_together(tier: Asked, partial: PartialObject) -> None:
    partial.read(BLOCK, 9 * BLOCK)
    assert tier.ranges == [ByteRange(BLOCK, 9 * BLOCK)]
    partial.read(0, 12 * BLOCK)
    assert tier.ranges[1:] == [ByteRange(0, BLOCK), ByteRange(10 * BLOCK, 2 * BLOCK)]


def test_what_follows_comes_along_where_a_request_costs_more(tier: Asked, tmp_path: Path) -> None:
    tier.range_cost = 8 * BLOCK
    partial = PartialObject(tier, KEY, len(DATA), tmp_path)
    partial.read(BLOCK, 10)
    assert partial.read(2 * BLOCK, 7 * BLOCK) == DATA[2 * BLOCK : 9 * BLOCK]
    assert tier.ranges == [ByteRange(BLOCK, 8 * BLOCK)]
    partial.read(len(DATA) - 5, 5)
    assert tier.ranges[1:] == [ByteRange(40 * BLOCK, 17)]


def test_a_small_object_is_fetched_whole_at_once(tier: Asked, tmp_path: Path) -> None:
    small = PartialObject(tier, KEY, 3 * BLOCK, tmp_path)
    assert small.read(10, 5) == DATA[10:15]
    assert tier.ranges == [ByteRange(0, 3 * BLOCK)]


def test_those_who_want_the_same_wait_for_one_request(tier: Asked, partial: PartialObject) -> None:
    tier.gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(partial.read, 0, 2 * BLOCK) for _ in range(8)]
        tier.gate.set()
        assert {read.result() for read in reads} == {DATA[: 2 * BLOCK]}
    assert tier.ranges == [ByteRange(0, 2 * BLOCK)]


def test_a_failure_reaches_who_asked_and_the_next_one_tries_again(
    tier: Asked, partial: PartialObject
) -> None:
    tier.faults = [TransientTierError("far", KEY, "unreachable")]
    with pytest.raises(TransientTierError):
        partial.read(0, 10)
    assert partial.read(0, 10) == DATA[:10]


def test_an_answer_that_is_cut_short_is_an_error(tier: Asked, partial: PartialObject) -> None:
    tier.short = 1
    with pytest.raises(TierError, match="gave 65535 of 65536 bytes"):
        partial.read(0, 10)
    tier.short = 0
    assert partial.read(0, 10) == DATA[:10]


def test_filling_ends_when_it_is_told_to(tier: Asked, partial: PartialObject) -> None:
    assert not partial.fill(lambda: True)
    assert tier.ranges == []


def test_the_least_recently_used_is_forgotten_beyond_the_limit(tier: Asked, tmp_path: Path) -> None:
    held = PartialObjects(tmp_path / "fetched", 3 * BLOCK)
    first = held.of(tier, KEY, len(DATA))
    first.read(0, 4 * BLOCK)
    assert held.of(tier, KEY, len(DATA)) is first
    held.of(tier, ObjectKey(f"pixel/00/{0:064x}"), 10)
    assert held.of(tier, KEY, len(DATA)) is not first


def test_what_was_forgotten_is_fetched_again(tier: Asked, tmp_path: Path) -> None:
    held = PartialObjects(tmp_path / "fetched", 1 << 30)
    held.of(tier, KEY, len(DATA)).read(0, 10)
    held.forget(KEY)
    held.of(tier, KEY, len(DATA)).read(0, 10)
    assert len(tier.ranges) == 2


def test_nothing_is_left_in_the_folder(tier: Asked, tmp_path: Path) -> None:
    held = PartialObjects(tmp_path / "fetched", 1 << 30)
    held.of(tier, KEY, len(DATA)).read(0, 10)
    assert list((tmp_path / "fetched").iterdir()) == []
