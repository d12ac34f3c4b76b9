"""The side information of the fast stream, written from `docs/codec.md` alone; see `independent_kernel`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.independent_kernel import Stack, demand

Array = npt.NDArray[np.int64]
MASK = 0xFFFFFFFF
TAPS = [
    *((0, 0, -1), (0, 0, -2), (0, -1, 0), (0, -1, -1), (0, -1, 1)),
    *((0, -2, 0), (0, -2, 1), (0, -1, 2), (0, -1, -2), (0, -2, -1)),
    *((0, -3, 0), (0, -2, 2), (0, -2, -2), (0, -1, 3), (0, -1, -3), (0, -3, 1), (0, -3, -1)),
    *((1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 0, -1), (1, -1, 0)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
    *((1, 0, 2), (1, 2, 0), (1, 0, -2), (1, -2, 0)),
    *((2, 0, 0), (2, 0, 1), (2, 1, 0), (2, 0, -1), (2, -1, 0)),
    *((2, 1, 1), (2, 1, -1), (2, -1, 1), (2, -1, -1)),
    *((3, 0, 0), (3, 0, 1), (3, 1, 0), (3, 0, -1), (3, -1, 0)),
]
POWERS = [round(2 ** (32 - j / 32)) for j in range(32)]


class Models:
    """A list of models: probabilities and counts."""

    def __init__(self, count: int) -> None:
        self.p = [32768] * count
        self.n = [0] * count


class SideReader:
    """The arithmetic code of the side information."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 4
        self.low, self.high = 0, MASK
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, p: int) -> int:
        """A bit whose probability of being 1 is p."""
        middle = self.low + ((self.high - self.low) * p >> 16)
        found = int(self.code <= middle)
        if found:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.low = self.low << 8 & MASK
            self.high = (self.high << 8 | 255) & MASK
            self.code = (self.code << 8 | byte) & MASK
        return found

    def modelled(self, models: Models, index: int) -> int:
        """A bit with a model, which learns it."""
        p, count = models.p[index], models.n[index]
        found = self.bit(p)
        step = 131072 // (2 * count + 3)
        models.p[index] = p + ((65535 - p) * step >> 16) if found else p - ((p - 1) * step >> 16)
        models.n[index] = min(30, count + 1)
        return found

    def plain(self, bits: int) -> int:
        """A number of so many bits, each as likely 0 as 1."""
        value = 0
        for _ in range(bits):
            value = 2 * value + self.bit(32768)
        return value

    def number(self, models: tuple[Models, Models]) -> int:
        """A number of any size."""
        length, second = models
        size = 0
        while size < 23 and self.modelled(length, size):
            size += 1
        if size < 2:
            return size
        start = 2 + self.modelled(second, size)
        return (start << size - 2) + self.plain(size - 2)

    def signed(self, models: tuple[Models, Models]) -> int:
        """A number of either sign."""
        return unfold(self.number(models))

    def tree(self, models: Models, depth: int) -> int:
        """A number of so many modelled bits."""
        node = 1
        for _ in range(depth):
            node = 2 * node + self.modelled(models, node)
        return node - (1 << depth)


def unfold(value: int) -> int:
    """A number of either sign from one that is not negative."""
    return -(value // 2) - 1 if value % 2 else value // 2


def number_models() -> tuple[Models, Models]:
    """Models of numbers."""
    return Models(24), Models(24)


@dataclass(frozen=True)
class Class:
    """A predictor."""

    weights: tuple[int, ...]
    offset: int
    shift: int


@dataclass(frozen=True)
class Table:
    """Symbols of a table, by slot: frequency, slot less start, base of the number (-1: spike), raw bits."""

    frequency: list[int]
    above: list[int]
    base: list[int]
    raw: list[int]


@dataclass
class Header:
    """All that the header says."""

    occurring: Array | None = None
    bits: int = 0
    block: int = 0
    fraction: int = 0
    error_shift: int = 0
    spike: int | None = None
    distances: list[int] = field(default_factory=list)
    taps: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    classes: dict[int, list[Class]] = field(default_factory=dict)
    table_of: list[int] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def references(self, frame: int) -> list[int]:
        """Frames that a frame refers to."""
        return [frame - distance for distance in self.distances if distance <= frame]


def read_header(side: SideReader, stack: Stack) -> Header:
    """Read the header; raises Damaged."""
    header = Header(bits=stack.bits)
    if side.plain(1):
        header.occurring = _runs(side, stack.bits)
        header.bits = max(1, (len(header.occurring) - 1).bit_length())
    header.block = 1 << 3 + side.plain(1)
    header.fraction = side.plain(4)
    demand(header.fraction >= 3, "weights of too few bits")
    header.error_shift = side.plain(4)
    if side.plain(1):
        header.spike = side.plain(header.bits)
    header.distances = [side.plain(8) for _ in range(side.plain(2))]
    demand(0 not in header.distances, "a distance of 0")
    _stages(side, header, stack.frames)
    count = 1 + side.plain(5)
    header.table_of = _contexts(side, count, 84 if header.spike is None else 252)
    spike, corrected, correction = number_models(), Models(1), number_models()
    for _ in range(count):
        header.tables.append(_table(side, header.spike is not None, spike, corrected, correction))
    return header


def _runs(side: SideReader, bits: int) -> Array:
    models, at, occurs = number_models(), 0, False
    found: list[int] = []
    while at < 1 << bits:
        run = side.number(models)
        demand(run > 0 or (at == 0 and not occurs), "an empty run")
        demand(at + run <= 1 << bits, "a run beyond the largest sample")
        if occurs:
            found += range(at, at + run)
        at, occurs = at + run, not occurs
    demand(bool(found), "no sample occurs")
    return np.array(found)


def _stages(side: SideReader, header: Header, frames: int) -> None:
    tap, weight = Models(4), [number_models() for _ in range(3)]
    offset, shift = number_models(), number_models()
    for stage in sorted({len(header.references(frame)) for frame in range(frames)}):
        taps = TAPS[:2]
        taps += [one for one in TAPS[2:] if one[0] <= stage and side.modelled(tap, one[0])]
        groups = [min(2, max(0, abs(row) + abs(column) + r - 1)) for r, row, column in taps]
        header.taps[stage], header.classes[stage] = taps, []
        for _ in range(1 + side.plain(6)):
            weights = tuple(side.signed(weight[group]) for group in groups)
            demand(all(-32768 <= one <= 32767 for one in weights), "a weight out of range")
            added = side.signed(offset) * 2 ** (header.fraction - 3) + 2 ** (header.fraction - 1)
            moved = side.signed(shift)
            demand(-10 <= moved <= 10, "a shift out of range")
            largest = sum(map(abs, weights)) * 2 ** (header.bits - 1) + abs(added)
            demand(largest < 2**30, "weights that are too large")
            header.classes[stage].append(Class(weights, added, moved))


def _contexts(side: SideReader, tables: int, contexts: int) -> list[int]:
    context, table, last = Models(2), Models(32), 0
    found = []
    for _ in range(contexts):
        if side.modelled(context, 0):
            last = side.tree(table, 5) if side.modelled(context, 1) else last + 1
        demand(last < tables, "no such table")
        found.append(last)
    return found


def _table(
    side: SideReader,
    spiked: bool,
    spike_models: tuple[Models, Models],
    corrected: Models,
    correction: tuple[Models, Models],
) -> Table:
    shift, count, scale, shape = side.plain(4), 1 + side.plain(6), side.plain(5), side.plain(2)
    spike = side.number(spike_models) if spiked else 0
    demand(not spiked or spike >= 1, "a spike without frequency")
    corrections = [0] * count
    if side.modelled(corrected, 0):
        value = 0
        for token in range(count):
            value += side.signed(correction)
            demand(-128 <= value <= 127, "a correction out of range")
            corrections[token] = value
    demand(count + spike <= 2048, "frequencies that are too large")
    ranges = [_token(token) for token in range(count)]
    demand(ranges[-1][1] + shift <= 20, "too many raw bits")
    weights = [
        _weight(base, extra, shift, scale, shape, one)
        for (base, extra), one in zip(ranges, corrections, strict=True)
    ]
    total, room = sum(weights), 2048 - spike - count
    frequencies = [1 + weight * room // total if total else 1 for weight in weights]
    frequencies[weights.index(max(weights))] += 2048 - spike - sum(frequencies)
    table = Table([spike] * spike, list(range(spike)), [-1] * spike, [0] * spike)
    for (base, extra), frequency in zip(ranges, frequencies, strict=True):
        table.frequency.extend([frequency] * frequency)
        table.above.extend(range(frequency))
        table.base.extend([base << shift] * frequency)
        table.raw.extend([extra + shift] * frequency)
    return table


def _token(token: int) -> tuple[int, int]:
    """Base and extra bits of a token."""
    if token < 24:
        return token, 0
    extra = 2 + (token - 24) // 2
    return 16 + (2 + token % 2) * 2**extra, extra


def _weight(base: int, extra: int, shift: int, scale: int, shape: int, correction: int) -> int:
    middle = base + (2 ** (extra - 1) if extra else 0)
    size = middle if shift else 2 * ((middle + 1) // 2)
    spread, heavy = (16, 19, 23, 27)[scale % 4] * 2 ** (scale // 4), (0, 1, 3, 12)[shape]
    cost = min(1535, 2**19 * size * size // (spread * (128 * size + heavy * spread))) if size else 0
    cost = min(1535, max(0, cost + 4 * correction + 256))
    return (POWERS[cost % 32] >> cost // 32) << extra
