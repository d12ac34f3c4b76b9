"""Decoding ahead: what follows in name order, the newest reader first, bounded, each once."""

from __future__ import annotations

import threading

from dicomfs.errors import DamagedError
from dicomfs.model import InstanceId
from dicomfs.readahead import DEPTH, WAITING, ReadAhead


class Order:
    """Series of a hundred; remembers what was decoded."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.problem: DamagedError | None = None
        self.ahead = ReadAhead(self)
        self.meet: threading.Barrier | None = None

    def following(self, instance: InstanceId, count: int) -> list[InstanceId]:
        return [InstanceId(1, at) for at in range(instance.position + 1, 100)][:count]

    def prefetch(self, instance: InstanceId) -> None:
        if self.problem is not None:
            raise self.problem
        self.decoded.append(instance.position)
        if self.meet is not None:
            self.meet.wait(10)

    def read(self, *positions: int) -> None:
        for position in positions:
            self.ahead.wish(InstanceId(1, position))


def test_what_follows_is_decoded_to_a_depth() -> None:
    order = Order()
    order.read(0)
    order.ahead.work()
    assert order.decoded == list(range(1, DEPTH + 1))


def test_a_reader_who_goes_on_has_each_file_decoded_once() -> None:
    order = Order()
    for position in range(10):
        order.read(position)
        order.ahead.work()
    assert order.decoded == list(range(1, 10 + DEPTH))


def test_the_newest_reader_comes_first_and_the_oldest_wishes_are_dropped() -> None:
    order = Order()
    order.read(*range(10, 100, 10))
    order.ahead.work()
    assert order.decoded[:DEPTH] == [91, 92, 93, 94]
    assert order.decoded[DEPTH : 2 * DEPTH] == [81, 82, 83, 84]
    assert len(order.decoded) == WAITING * DEPTH


def test_several_threads_share_one_plan() -> None:
    order = Order()
    order.meet = threading.Barrier(2)
    order.read(0)
    threads = [threading.Thread(target=order.ahead.work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(order.decoded) == list(range(1, DEPTH + 1))


def test_nothing_is_decoded_after_the_stop() -> None:
    order = Order()
    order.read(0)
    order.ahead.stop()
    order.ahead.work()
    assert order.decoded == []


def test_without_a_wish_there_is_nothing_to_do() -> None:
    order = Order()
    order.ahead.work()
    assert order.decoded == []


def test_damage_met_ahead_is_left_to_the_reader() -> None:
    order = Order()
    order.problem = DamagedError("pixel/00", "bad digest")
    order.read(0)
    order.ahead.work()
    assert order.decoded == []
