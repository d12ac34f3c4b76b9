"""Binary decisions of the dense stream, written from `docs/codec.md` alone; see `independent_kernel`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from tests.independent_kernel import demand

f32 = np.float32

SIMPLE_LIMIT, MIXED_LIMIT = 255, 400
NODES, SETS, CURVES = 48, 20, 40
MASK = (1 << 64) - 1


def _squash() -> list[int]:
    table, e = [16] * 4096, 2**31
    for x in range(2048):
        table[2048 + x] = min(65520, 2**47 // (2**31 + e))
        if x > 0:
            table[2048 - x] = 65536 - table[2048 + x]
        e = (e * 2139111487 + 2**30) >> 31
    return table


def _stretch() -> list[int]:
    table, x = [], -2047
    for j in range(4096):
        while x < 2047 and SQUASH[x + 2048] >> 4 < j:
            x += 1
        table.append(x)
    return table


SQUASH = _squash()
STRETCH = _stretch()


def share(error: int, count: int) -> int:
    """The part of an error that what has learnt so many times moves by."""
    return int(f32(error) / (f32(count) + f32(2.4)))


class Slots:
    """Slots that are at hand, probability and count in two lists."""

    def __init__(self, count: int) -> None:
        self.s = [1 << 21] * count
        self.n = [0] * count

    def learn(self, index: int, bit: int, limit: int) -> None:
        """Let a slot learn a bit."""
        s, n = self.s[index], self.n[index]
        self.s[index] = s + share((4194303 if bit else 0) - s, n)
        if n < limit:
            self.n[index] = n + 1


class Coder:
    """The arithmetic code."""

    def __init__(self, data: bytes) -> None:
        self.data, self.fetched = data, 8
        self.range, self.low = MASK, int.from_bytes(data[:8].ljust(8, b"\0"), "big")

    def bit(self, p: int) -> int:
        """A decision with the probability p of a one."""
        one = (self.range >> 16) * p
        found = int(self.low < one)
        if found:
            self.range = one
        else:
            self.low -= one
            self.range -= one
        if self.range < 1 << 32:
            more = self.data[self.fetched : self.fetched + 4].ljust(4, b"\0")
            self.range <<= 32
            self.low = (self.low << 32 | int.from_bytes(more, "big")) & MASK
            self.fetched += 4
        return found

    def plain(self, count: int) -> int:
        """A number of so many plain bits."""
        value = 0
        for _ in range(count):
            value = 2 * value + self.bit(32768)
        return value

    def simple(self, slots: Slots, index: int) -> int:
        """A simple decision by a slot."""
        found = self.bit(max(24, min(65512, slots.s[index] >> 6)))
        slots.learn(index, found, SIMPLE_LIMIT)
        return found

    def check(self, *, last: bool) -> None:
        """Compare the bytes fetched with those there are, after a frame."""
        demand(self.fetched <= len(self.data) + 8, "the code ends too early")
        demand(not last or self.fetched >= len(self.data), "the code is too long")


class Bias:
    """A table of means."""

    def __init__(self) -> None:
        self.means: defaultdict[Hashable, list[int]] = defaultdict(lambda: [0, 0])

    def learn(self, key: Hashable, distance: int) -> None:
        """Learn how far a prediction was off."""
        mean, count = self.means[key]
        self.means[key] = [mean + share(256 * distance - mean, count), min(255, count + 1)]


class Mixing:
    """Mixers, the slots of all contexts, and at level 1 the curves that refine what mixers say."""

    def __init__(self, coder: Coder, level: int) -> None:
        self.coder, self.level, self.count = coder, level, 8 if level else 5
        self.tables: list[defaultdict[Hashable, Slots]] = [
            defaultdict(lambda: Slots(NODES)) for _ in range(self.count)
        ]
        first = [16384 // self.count] * self.count + [0]
        self.mixers = [
            [[first.copy() for _ in range(SETS)] for _ in range(NODES)] for _ in range(2 if level else 1)
        ]
        curve = [16 * SQUASH[min(4095, max(1, 128 * place))] for place in range(33)]
        self.curves = [[curve.copy() for _ in range(CURVES)] for _ in range(NODES if level else 0)]

    def slots(self, contexts: Sequence[Hashable]) -> list[Slots]:
        """The slots of each context."""
        return [table[context] for table, context in zip(self.tables, contexts, strict=True)]

    def decide(self, node: int, slots: list[Slots], sets: Sequence[int], curve: int) -> int:
        """A mixed decision."""
        inputs = [STRETCH[each.s[node] >> 10] for each in slots]
        inputs.append(256)
        weights = [mixer[node][one] for mixer, one in zip(self.mixers, sets, strict=False)]
        sums = [_clamp(sum(map(int.__mul__, each, inputs)) >> 14, -2047, 2047) for each in weights]
        p = self._refined(node, sums, curve) if self.level else SQUASH[sums[0] + 2048]
        found = self.coder.bit(_clamp(p, 24, 65512))
        for each, total in zip(weights, sums, strict=True):
            miss = ((65535 if found else 0) - SQUASH[total + 2048]) >> 3
            for index, value in enumerate(inputs):
                each[index] = _clamp(each[index] + ((value * miss + 16384) >> 15), -32768, 32767)
        for one in slots:
            one.learn(node, found, MIXED_LIMIT)
        if self.level:
            self._learn_curve(node, sums, curve, found)
        return found

    def _refined(self, node: int, sums: list[int], curve: int) -> int:
        mean = int((sums[0] + sums[1]) / 2) + 2048
        place, part = mean >> 7, mean & 127
        points = self.curves[node][curve]
        refined = (points[place] >> 4) * (128 - part) + (points[place + 1] >> 4) * part
        return (SQUASH[mean] + (refined >> 7) + 1) >> 1

    def _learn_curve(self, node: int, sums: list[int], curve: int, bit: int) -> None:
        mean = int((sums[0] + sums[1]) / 2) + 2048
        place, points = (mean >> 7) + ((mean & 127) >= 64), self.curves[node][curve]
        points[place] += (1048560 - points[place]) >> 6 if bit else -(points[place] >> 6)


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(most, value))
