"""What decides a sample of the dense stream, written from `docs/codec.md` alone; see `independent_kernel`.

Takes what solutions predict and the surroundings; gives the sample.  All numbers are whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from tests.independent_decisions import Bias, Coder, Mixing, Slots
from tests.independent_kernel import finer, log2

SIGN, SPIKE, PARITY = 0, 33, 35
MOST = 65536


@dataclass(frozen=True)
class Row:
    """Lines around a row, with margins: this, the one above, the next; of reference 1: above, this, below."""

    samples: tuple[list[int], list[int], list[int]]
    errors: tuple[list[int], list[int], list[int]]
    first: list[list[int]] | None
    first_errors: list[list[int]]
    second: list[int] | None
    signs: list[int]
    signs_above: list[int]
    """Without margins; what is left of the first is at -1."""


@dataclass(frozen=True)
class Decided:
    """A sample, and what its surroundings say of its error."""

    sample: int
    energy: int


class Sampler:
    """Decodes samples and learns from them."""

    def __init__(self, coder: Coder, level: int, top: int, spikes: tuple[int, ...], *, parity: bool) -> None:
        self.coder, self.level, self.top, self.spikes, self.parity = coder, level, top, spikes, parity
        self.mixing = Mixing(coder, level)
        self.c: int | None = None
        self.by_comparison, self.by_signs = Bias(), Bias()
        self.long = Slots(24)
        self.low: defaultdict[Hashable, Slots] = defaultdict(lambda: Slots(3))

    def sample(self, row: Row, at: int, column: int, blend: int, raws: list[int]) -> Decided:
        """Decode the sample at a column, whose place in the lines is `at`."""
        self._look(row, at, column)
        n, nw, ne, w, ww, fifth = self.n, self.nw, self.ne, self.w, self.ww, self.fifth
        compared = (w, n, nw, ne, fifth, 2 * w - ww, 2 * n - self.nn)
        self.compared = sum((32 * value > blend) << bit for bit, value in enumerate(compared))
        keys = (self.compared, self.q >> 2), (self.signs, self.q >> 2, self.sides)
        means = self.by_comparison.means[keys[0]][0] + self.by_signs.means[keys[1]][0]
        mu = max(0, min(32 * self.top, blend + (means >> 9)))
        self.predicted = (mu + 16) >> 5
        self.fraction = min(31, mu - 32 * self.predicted + 16)
        sample = self._decide(row, at, raws)
        distance = max(-2000, min(2000, 32 * sample - blend))
        self.by_comparison.learn(keys[0], distance)
        self.by_signs.learn(keys[1], distance)
        miss = 32 * sample - mu
        row.samples[0][at] = sample
        row.errors[0][at] = min(65535, (abs(miss) + 4) >> 3)
        row.signs[column] = (miss > 8) - (miss < -8)
        return Decided(sample, self.energy)

    def _look(self, row: Row, at: int, column: int) -> None:
        here, above, above_that = row.samples
        self.w, self.ww, self.nn = here[at - 1], here[at - 2], above_that[at]
        self.nw, self.n, self.ne = above[at - 1 : at + 2]
        errors, errors_above, errors_above_that = row.errors
        self.error_w, self.error_n = errors[at - 1], errors_above[at]
        self.ec = 3 * self.error_n + 2 * errors_above[at - 1] + 2 * errors_above[at + 1]
        self.ec += errors_above_that[at] + 3 * self.error_w + errors[at - 2]
        self.er, self.energy, self.sides = self.ec, self.ec, 0
        self.c, self.fifth = None, self.ww
        if row.first is not None:
            self.c = self.fifth = row.first[1][at]
            up, there, down = row.first_errors
            self.er = 4 * there[at] + 2 * there[at + 1] + 2 * down[at] + there[at - 1] + up[at]
            self.er += down[at - 1] + down[at + 1]
            self.energy = (2 * self.ec + self.er + 1) // 3
            self.sides = 2 * (row.first[1][at - 1] < self.c) + (row.first[1][at + 1] < self.c)
        self.signs = 3 * (row.signs[column - 1] + 1) + row.signs_above[column] + 1
        self.q = finer(self.energy + 1)
        self.k = log2(self.energy) - 6 if self.energy >= 128 else 0

    def _contexts(self, raws: list[int]) -> list[Hashable]:
        q, near = self.q, self.n if self.c is None else self.c
        found: list[Hashable] = [
            (self.signs, self.sides, self.error_w > self.error_n, 2 * self.error_w > self.er // 12, q >> 3),
            (finer(self.ec + 1) >> 1, finer(self.er + 1) >> 1),
            (self.fraction // 2, q >> 1),
            (near < self.predicted, min(15, finer(abs(near - self.predicted) + 1) >> 1), q >> 1),
            (finer(self.predicted + 1), q >> 2),
        ]
        if not self.level:
            return found
        rough = abs(self.w - self.nw) + abs(self.n - self.nw) + abs(self.n - self.ne) + abs(self.w - self.ww)
        apart = raws[0] - raws[1]
        height = finer((abs(apart) >> 2) + 1) >> 2
        height = max(-4, min(4, -height if apart < 0 else height))
        found += [
            (self.compared, q >> 3),
            (finer(rough + 1) >> 1, q >> 1),
            (self.signs, height, q >> 2),
        ]
        return found

    def _decide(self, row: Row, at: int, raws: list[int]) -> int:
        contexts = self._contexts(raws)
        sets, curve = (min(19, self.q // 3), finer(self.predicted + 1) >> 2), self.q >> 1
        for number, spike in enumerate(self.spikes):
            away = self.predicted - spike
            if abs(away) <= (8 << self.k) + 1:
                chosen = [contexts[0], *self._spike_contexts(row, at, spike), *contexts[3:]]
                if self.mixing.decide(SPIKE + number, self.mixing.slots(chosen), sets, curve):
                    return spike
        slots = self.mixing.slots(contexts)

        def mixed(node: int) -> int:
            return self.mixing.decide(node, slots, sets, curve)

        negative = mixed(SIGN)
        high = 0
        while high < 24 and mixed((9 if negative or high > 6 else 1) + high):
            high += 1
        if high == 24:
            high += self._long()
        size = high << self.k
        if self.k:
            size |= self._low(high)
            if self.parity:
                odds = sum(value & 1 for value in (self.w, self.n, self.nw, self.ne, self.fifth))
                size |= mixed(PARITY + odds) ^ (self.predicted & 1) ^ negative
        size = min(size, MOST)
        return max(0, min(self.top, self.predicted + (-1 - size if negative else size)))

    def _spike_contexts(self, row: Row, at: int, spike: int) -> list[Hashable]:
        near = sum(value == spike for value in (self.w, self.n, self.ne, self.nw, self.ww))
        around = 0
        if row.first is not None:
            up, there, down = row.first
            around = sum(value == spike for value in (there[at + 1], there[at - 1], down[at], up[at]))
        same = (self.nn if self.c is None else self.c) == spike
        back = row.second is not None and row.second[at] == spike
        away = max(-16, min(15, (self.predicted - spike) >> max(self.k - 1, 0)))
        return [(2 * near + same, 2 * around + back), ((away + 16) // 2, self.q >> 1)]

    def _long(self) -> int:
        size = 0
        while size < 23 and self.coder.simple(self.long, size):
            size += 1
        return (1 << size | self.coder.plain(size)) - 1

    def _low(self, high: int) -> int:
        """The low bits of a residual; with parity the last one is left 0."""
        count, value = self.k - self.parity, 0
        slots = self.low[self.q, min(high, 3)]
        for number in range(count):
            place = 1 + value if number else 0
            value = 2 * value + (self.coder.simple(slots, place) if number < 2 else self.coder.plain(1))
        return value << self.parity
