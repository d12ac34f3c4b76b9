"""Batches side by side: order, bounds, stopping, and what one that fails means for the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dicomfs.errors import CatalogFull, TierFull
from dicomfs.packing.pipeline import AT_ONCE, side_by_side


def test_every_group_is_done_and_never_more_than_agreed_are_under_way() -> None:
    lock, under_way, most, done = threading.Lock(), 0, 0, []
    both = threading.Barrier(AT_ONCE, timeout=20)

    def work(group: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        both.wait()
        with lock:
            under_way -= 1
            done.append(group)

    side_by_side(range(6 * AT_ONCE), work, threading.Event())
    assert sorted(done) == list(range(6 * AT_ONCE))
    assert most == AT_ONCE


def test_groups_are_asked_for_as_their_turn_comes() -> None:
    asked: list[int] = []
    done: list[int] = []

    def groups() -> Iterator[int]:
        for number in range(8):
            asked.append(number)
            assert len(done) >= number - AT_ONCE
            yield number

    side_by_side(groups(), done.append, threading.Event())
    assert asked == list(range(8))


def test_nothing_is_begun_once_it_is_to_stop() -> None:
    stop, begun = threading.Event(), []

    def work(group: int) -> None:
        begun.append(group)
        stop.set()

    side_by_side(range(100), work, stop)
    assert 1 <= len(begun) <= AT_ONCE


def test_what_one_raises_stops_the_others_and_is_raised() -> None:
    stop, dropped = threading.Event(), []

    def work(group: int) -> None:
        if group == 0:
            raise CatalogFull("full")
        assert stop.wait(20)
        dropped.append(group)

    with pytest.raises(CatalogFull):
        side_by_side(range(10), work, stop)
    assert dropped in ([], [1])


def test_a_disk_that_is_too_full_for_two_may_have_room_for_one() -> None:
    both, tried, done = threading.Barrier(AT_ONCE, timeout=20), [], []

    def work(group: int) -> None:
        tried.append(group)
        if len(tried) <= AT_ONCE:
            both.wait()
            if group == 1:
                raise TierFull("staging", "x", "full")
        done.append(group)

    side_by_side(range(2), work, threading.Event())
    assert done == [0, 1]
    assert tried.count(1) == 2


def test_a_disk_that_is_too_full_for_one_is_an_error_at_once() -> None:
    tried = []

    def work(group: int) -> None:
        tried.append(group)
        raise TierFull("staging", "x", "full")

    with pytest.raises(TierFull):
        side_by_side(range(1), work, threading.Event())
    assert tried == [0]
