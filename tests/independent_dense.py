"""A decoder of the dense stream, written from `docs/codec.md` alone; see `independent_kernel`.

Here are the header, the planes and the prediction, which is in numbers of 32 bits, in the order of the text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.independent_decisions import Coder, Slots
from tests.independent_dense_samples import Row, Sampler
from tests.independent_kernel import Stack, demand

Array = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
f32 = np.float32
MARGIN = 3
SEGMENT, CELL_ROWS = 16, 8
SHORT = 16
"""Taps of solution 2."""
FIXED = ((-1, 0), (-1, -1), (-1, 1))
OLD = ((0, 0), (1, 0), (0, 1), (0, -1), (1, 1), (1, -1))
FIXED_WEIGHTS = (
    (1, 0.7, 0.7, 0.8, 0.5, 0, 0, 0, 0),
    (1, 0.9, 0.9, 0.8, 0.6, 0.5, 0.5, 0.5, 0.5),
    (0.6, 0, 0.3, 0.4, 0, 0, 0, 0, 0),
)
MOVING = (
    ((0, 1), (-1, 1), (1, 1)),
    ((0, 1), (-1, 1), (1, 1), (-2, 1), (2, 1)),
    ((0, 2), (-1, 0.5)),
)
SHORT_SPATIAL = """
0,0,-1  0,0,-2  0,0,-3  0,-1,0  1,0,0  0,-1,-1  0,-1,1  0,-2,0  1,0,1  1,1,0  1,0,-1  1,-1,0  1,1,1
2,0,0  0,-2,1  0,-1,2  1,1,-1  1,-1,1  1,-1,-1  0,-2,-1  0,-1,-2  0,-3,0  2,0,1
"""
SHORT_TEMPORAL = """
0,0,-1  0,0,-2  0,0,-3  0,-1,0  1,0,0  2,0,0  3,0,0  0,-1,-1  0,-1,1  1,0,1  1,1,0  1,0,-1  1,-1,0
2,0,1  2,1,0  2,0,-1  2,-1,0  3,0,1  3,1,0  3,0,-1  3,-1,0  1,1,1  0,-2,0
"""
LONG_SPATIAL = """
0,0,-1  0,0,-2  0,0,-3  1,0,0  0,-1,0  0,-1,-1  0,-1,1  1,-1,0  1,0,-1  1,0,1  1,1,0  1,-1,-1  1,-1,1
1,1,-1  1,1,1  0,-2,0  2,0,0  0,-2,-1  0,-2,1  0,-1,-2  0,-1,2  1,-2,0  1,0,-2  1,0,2  1,2,0  2,-1,0
2,0,-1  2,0,1  2,1,0  1,-2,-1  1,-2,1  1,-1,-2  1,-1,2  1,1,-2  1,1,2  1,2,-1  1,2,1  0,-2,-2  0,-2,2
2,-1,-1  2,-1,1  2,1,-1  2,1,1  0,-3,0  1,-2,-2  1,-2,2  1,2,-2
"""
LONG_TEMPORAL = """
0,0,-1  0,0,-2  0,0,-3  0,-1,0  1,0,0  2,0,0  3,0,0  0,-1,-1  0,-1,1  1,0,1  1,1,0  1,0,-1  1,-1,0
2,0,1  2,1,0  2,0,-1  2,-1,0  3,0,1  3,1,0  3,0,-1  3,-1,0  1,1,1  1,1,-1  1,-1,1  1,-1,-1  0,-2,0
0,-2,1  0,-1,2  0,-2,-1  0,-1,-2  0,-3,0  1,0,2  1,2,0  1,0,-2  1,-2,0  2,1,1  2,1,-1  2,-1,1  2,-1,-1
3,1,1  3,1,-1  3,-1,1  3,-1,-1  0,-2,-2  0,-2,2  1,-1,2  1,1,-2
"""
TAPS = [
    [tuple(int(number) for number in tap.split(",")) for tap in text.split()]
    for text in (SHORT_SPATIAL, SHORT_TEMPORAL, LONG_SPATIAL, LONG_TEMPORAL)
]


@dataclass(frozen=True)
class Header:
    """All that the header says."""

    level: int
    taps: list[tuple[int, ...]]
    parity: bool
    top: int
    distances: tuple[int, ...]
    spikes: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...]
    length: int

    def references(self, frame: int) -> list[int | None]:
        """Frames that a frame refers to, None where there is none."""
        found: list[int] = []
        for configured in self.distances:
            distance = configured if configured <= frame else 1
            found.append(0 if distance in found or distance > frame else distance)
        return [frame - distance if distance else None for distance in found]


def read_header(stack: Stack, stream: bytes) -> Header:
    """Read the header of a stream that is not stored; raises Damaged."""
    flags = stream[1]
    spikes = flags >> 4 & 3
    demand(not flags & 129 and spikes < 3, "flags that do not go together")
    end = 10 + 2 * spikes
    demand(len(stream) >= end + (flags >> 6), "the header is cut off")
    top, *numbers = struct.unpack_from(f"<{4 + spikes}H", stream, 2)
    demand(all(spike <= top for spike in numbers[3:]), "a spike above the largest sample")
    gaps: list[tuple[int, int]] = []
    if flags & 64:
        count, end = stream[end], end + 1
        demand(1 <= count <= 15 and len(stream) >= end + 4 * count, "gaps")
        gaps = [struct.unpack_from("<HH", stream, end + 4 * number) for number in range(count)]
        end += 4 * count
        last = 0
        for at, size in gaps:
            demand(size > 0 and at >= last, "gaps that are empty or out of order")
            last = at + size
    demand(top + sum(size for _, size in gaps) <= 65535, "gaps beyond 65535")
    level = flags >> 1 & 1
    header = Header(
        level,
        TAPS[2 * level + (flags >> 2 & 1)],
        bool(flags & 8),
        top,
        tuple(numbers[:3]),
        tuple(numbers[3:]),
        tuple(gaps),
        end,
    )
    demand(int(opened(header, np.array(top))) < 1 << stack.bits, "samples of more bits")
    return header


def opened(header: Header, samples: Array) -> Array:
    """Samples with their gaps opened."""
    for at, size in header.gaps:
        samples = samples + size * (samples >= at)
    return samples


class Frame:
    """Planes of samples and errors, (0, 0) at [MARGIN, MARGIN]; rows are lists while they are coded."""

    def __init__(self, stack: Stack, reference: Frame | None) -> None:
        self.rows, self.columns = stack.rows, stack.columns
        self.samples = [[0] * (stack.columns + 2 * MARGIN) for _ in range(stack.rows + 2 * MARGIN)]
        self.errors = [line.copy() for line in self.samples]
        if reference is not None:
            for own, other in zip(self.planes(), reference.planes(), strict=True):
                own[:MARGIN] = [other[MARGIN].copy() for _ in range(MARGIN)]

    def planes(self) -> tuple[list[list[int]], list[list[int]]]:
        """Samples and errors."""
        return self.samples, self.errors

    def begin(self, row: int) -> None:
        """Fill what is left of a row."""
        for plane in self.planes():
            plane[MARGIN + row][:MARGIN] = [plane[MARGIN + row - 1][MARGIN]] * MARGIN

    def end(self, row: int) -> None:
        """Fill what is right of a row."""
        for plane in self.planes():
            line = plane[MARGIN + row]
            line[MARGIN + self.columns :] = [line[MARGIN + self.columns - 1]] * MARGIN

    def finish(self) -> None:
        """Positions outside become the nearest position inside."""
        for number, plane in enumerate(self.planes()):
            known = np.array(plane)[MARGIN:-MARGIN, MARGIN:-MARGIN]
            plane[:] = np.pad(known, MARGIN, mode="edge").tolist()
            if number == 0:
                self.known = known


class Solver:
    """Cells of the frame coded now and of the one before, and the weights that solve for them."""

    def __init__(self, stack: Stack, header: Header) -> None:
        self.taps = len(header.taps)
        self.solutions = 3 if header.level else 1
        self.grid = (-(-stack.rows // CELL_ROWS), -(-stack.columns // SEGMENT))
        self.old: Floats | None = None
        self.order = [*range(3, self.taps), 2, 1, 0]

    def begin(self) -> None:
        """Start a frame."""
        down, across = self.grid
        self.cells = np.zeros((down, across, self.taps + 1, self.taps + 1), f32)
        self.fixed: dict[tuple[int, int, int], Floats] = {}

    def end(self) -> None:
        """Keep the cells for the next frame."""
        self.old = self.cells

    def solve(self, row: int, column: int) -> Floats:
        """Weights of all solutions, (solutions, taps)."""
        found = np.zeros((self.solutions, self.taps), f32)
        for number in range(self.solutions):
            key = (number, row, column)
            if key not in self.fixed:
                self.fixed[key] = self._fixed(*key)
            window = self.fixed[key].copy()
            for x, weight in MOVING[number]:
                self._add(window, self.cells, row, column + x, weight)
            if number == 2:
                chosen = [*range(SHORT), self.taps]
                found[number, :SHORT] = least_squares(window[np.ix_(chosen, chosen)])
            else:
                found[number] = least_squares(window)
        return found

    def _fixed(self, number: int, row: int, column: int) -> Floats:
        total = np.zeros((self.taps + 1, self.taps + 1), f32)
        weights = FIXED_WEIGHTS[number]
        for (y, x), weight in zip(FIXED, weights[:3], strict=True):
            self._add(total, self.cells, row + y, column + x, weight)
        if self.old is not None:
            for (y, x), weight in zip(OLD, weights[3:], strict=True):
                self._add(total, self.old, row + y, column + x, weight)
        return total

    def _add(self, total: Floats, cells: Floats, row: int, column: int, weight: float) -> None:
        if weight and 0 <= row < self.grid[0] and 0 <= column < self.grid[1]:
            total += f32(weight) * cells[row, column]

    def learn(self, row: int, column: int, terms: Floats, energies: Sequence[int]) -> None:
        """Let a cell learn the samples of a segment; terms are (samples, taps + 1)."""
        level = np.array(energies, f32) * f32(f32(1) / f32(48)) + f32(0.5)
        big = np.maximum(f32(1), np.abs(terms).max(axis=1))
        scale = np.minimum(f32(32) / level, f32(8191) / big)
        scaled = np.trunc(terms * scale[:, None]).astype(np.int64)
        self.cells[row, column] += (scaled.T @ scaled).astype(f32)


def least_squares(matrix: Floats) -> Floats:
    """Weights that solve a window; its last column is the right side."""
    count = len(matrix) - 1
    factors, right = np.zeros((count, count), f32), np.zeros(count, f32)
    for k in range(count):
        diagonal = matrix[k, k] * f32(1.0005) + f32(300)
        if not diagonal > 1:
            diagonal = f32(1)
        inverse = f32(1) / diagonal
        right[k] = matrix[k, count] * inverse
        factor = matrix[k, k + 1 : count] * inverse
        factors[k + 1 :, k] = factor
        matrix[k + 1 : count, k + 1 :] -= factor[:, None] * matrix[k, k + 1 :]
    for j in range(count - 1, -1, -1):
        right[:j] -= factors[j, :j] * right[j]
    return right


class Decoder:
    """Decodes the frames of a coded stream one after the other."""

    def __init__(self, stack: Stack, header: Header, coder: Coder) -> None:
        self.stack, self.header, self.coder = stack, header, coder
        self.solver = Solver(stack, header)
        self.sampler = Sampler(coder, header.level, header.top, header.spikes, parity=header.parity)
        self.flat_slots = Slots(2)
        self.frames: list[Frame] = []

    def frame(self) -> Array:
        """Decode the next frame."""
        numbers = self.header.references(len(self.frames))
        self.references = [None if one is None else self.frames[one] for one in numbers]
        self.now = Frame(self.stack, self.references[0])
        self.solver.begin()
        width = self.stack.columns
        self.signs = [0] * (width + 1)
        # Of solutions: how far off they were in the last three rows, this one first; a margin of two and one.
        self.misses = np.zeros((self.solver.solutions, 3, width + 3), np.int64)
        for row in range(self.stack.rows):
            self._row(row)
        self.now.finish()
        self.solver.end()
        self.frames.append(self.now)
        self.coder.check(last=len(self.frames) == self.stack.frames)
        return opened(self.header, self.now.known)

    def _row(self, row: int) -> None:
        if row % (1 if self.header.level else 2) == 0:
            self.weights: dict[int, Floats] = {}
        self.now.begin(row)
        self.misses[:, 1:] = self.misses[:, :-1].copy()
        self.misses[:, 0] = 0
        lines = self._lines(row)
        self.signs = lines.signs
        for start in range(0, self.stack.columns, SEGMENT):
            end = min(start + SEGMENT, self.stack.columns)
            if not self._flat(lines, row, start, end):
                self._segment(lines, row, start, end)
        self.now.end(row)

    def _lines(self, row: int) -> Row:
        """Find the lines of the planes that this row looks at."""
        at, first, second = MARGIN + row, self.references[0], self.references[1]
        planes = [self.now, *self.references]
        self.tap_lines: list[tuple[list[int] | None, int]] = []
        for number, y, x in self.header.taps:
            plane = planes[number]
            self.tap_lines.append((None if plane is None else plane.samples[at + y], x))
        samples, errors = self.now.planes()
        return Row(
            (samples[at], samples[at - 1], samples[at - 2]),
            (errors[at], errors[at - 1], errors[at - 2]),
            None if first is None else first.samples[at - 1 : at + 2],
            [] if first is None else first.errors[at - 1 : at + 2],
            None if second is None else second.samples[at],
            [0] * (self.stack.columns + 1),
            self.signs,
        )

    def _flat(self, lines: Row, row: int, start: int, end: int) -> bool:
        """Say whether a segment is flat and coded as one value."""
        line, above, _ = lines.samples
        value = line[MARGIN + start - 1]
        place = slice(MARGIN + start, MARGIN + end)
        if row == 0 and lines.first is None:
            return False
        if any(one != value for one in above[MARGIN + start - 1 : MARGIN + end + 1]):
            return False
        same = lines.first is not None and all(one == value for one in lines.first[1][place])
        if not self.coder.simple(self.flat_slots, int(same)):
            return False
        line[place] = [value] * (end - start)
        lines.errors[0][place] = [0] * (end - start)
        return True

    def _segment(self, lines: Row, row: int, start: int, end: int) -> None:
        column = start // SEGMENT
        if column not in self.weights:
            self.weights[column] = self.solver.solve(row // CELL_ROWS, column)
        weights = self.weights[column][:, self.solver.order]
        learnt, energies = [], []
        for x in range(start, end):
            terms, base = self._terms(lines, MARGIN + x)
            raws = self._raws(terms, base, weights)
            blend = self._blend(raws, x) if self.header.level else raws[0]
            found = self.sampler.sample(lines, MARGIN + x, x, blend, raws)
            self.misses[:, 0, x + 2] = [min(65535, abs(32 * found.sample - raw)) for raw in raws]
            learnt.append(np.append(terms, f32(found.sample) - base))
            energies.append(found.energy)
        self.solver.learn(row // CELL_ROWS, column, np.array(learnt, f32), energies)

    def _terms(self, lines: Row, at: int) -> tuple[Floats, np.float32]:
        base = f32(lines.samples[1][at])
        if lines.first is not None:
            base = (base + f32(lines.first[1][at])) * f32(0.5)
        found = [float(base) if line is None else line[at + moved] for line, moved in self.tap_lines]
        return np.array(found, f32) - base, base

    def _raws(self, terms: Floats, base: np.float32, weights: Floats) -> list[int]:
        found, most = [], f32(32 * self.header.top)
        products = terms[self.solver.order] * weights
        for sums in np.add.accumulate(products, axis=1, dtype=f32):
            value = (sums[-1] + base) * f32(32) + f32(0.5)
            if not value > 0:
                value = f32(0)
            found.append(int(min(value, most)))
        return found

    def _blend(self, raws: list[int], x: int) -> int:
        here, above, above_that = (self.misses[:, number, x : x + 4].T for number in range(3))
        k = 8 + 2 * (here[1] + above[2]) + above[1] + above[3] + here[0] + above_that[2]
        size = k.astype(f32)
        gains = f32(1) / (size * size)
        total = share = f32(0)
        for gain, raw in zip(gains, raws, strict=True):
            total, share = total + gain * f32(raw), share + gain
        return int(total / share + f32(0.5))


def _stored(stack: Stack, data: bytes) -> Array:
    size = 1 if stack.bits <= 8 else 2
    demand(len(data) == stack.samples * size, "stored samples of another length")
    return np.frombuffer(data, f"<u{size}").astype(np.int64)


def decode(stack: Stack, stream: bytes) -> Array:
    """Samples of all frames, (frames, rows, columns); raises Damaged."""
    demand(len(stream) >= 2 and stream[0] == 1, "an unknown version")
    if stream[1] == 1:
        return _stored(stack, stream[2:]).reshape(stack.frames, stack.rows, stack.columns)
    header = read_header(stack, stream)
    decoder = Decoder(stack, header, Coder(stream[header.length :]))
    with np.errstate(all="ignore"):
        return np.stack([decoder.frame() for _ in range(stack.frames)])
