"""Decoding ahead: newest wish first, bounded, and ended by a newer one."""

from __future__ import annotations

from dicomfs.errors import DamagedError
from dicomfs.model import InstanceId
from dicomfs.readahead import DEPTH, WAITING, ReadAhead


class Order:
    """A series of thirty; remembers what was decoded, and calls back after each."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.problem: DamagedError | None = None
        self.ahead = ReadAhead(self)
        self.interrupt_at = -1

    def following(self, instance: InstanceId, count: int) -> list[InstanceId]:
        return [InstanceId(1, at) for at in range(instance.position + 1, 30)][:count]

    def prefetch(self, instance: InstanceId) -> None:
        if self.problem is not None:
            raise self.problem
        self.decoded.append(instance.position)
        if instance.position == self.interrupt_at:
            self.ahead.wish(InstanceId(1, 20))


def test_what_follows_is_decoded_to_a_depth() -> None:
    order = Order()
    order.ahead.wish(InstanceId(1, 0))
    order.ahead.work()
    assert order.decoded == list(range(1, DEPTH + 1))
    assert not order.ahead.has_wishes()


def test_the_newest_wish_comes_first_and_old_ones_are_dropped() -> None:
    order = Order()
    for position in range(10):
        order.ahead.wish(InstanceId(1, position))
    served = []
    while order.ahead.has_wishes():
        order.ahead.work()
        served.append(order.decoded[-DEPTH:])
    assert served == [list(range(at + 1, at + 1 + DEPTH)) for at in range(9, 9 - WAITING, -1)]


def test_a_newer_wish_ends_the_one_at_work() -> None:
    order = Order()
    order.interrupt_at = 2
    order.ahead.wish(InstanceId(1, 0))
    order.ahead.work()
    assert order.decoded == [1, 2]
    order.ahead.work()
    assert order.decoded == [1, 2, 21, 22, 23, 24]


def test_nothing_is_decoded_after_the_stop() -> None:
    order = Order()
    order.ahead.wish(InstanceId(1, 0))
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
    order.ahead.wish(InstanceId(1, 0))
    order.ahead.work()
    assert order.decoded == []
