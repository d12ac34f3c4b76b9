"""A decoder of the fast stream, written from `docs/codec.md` alone; see `independent_kernel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.independent_fast_side import Models, SideReader, Table, read_header
from tests.independent_kernel import Damaged, Stack, demand

Array = npt.NDArray[np.int64]
MASK = 0xFFFFFFFF
COPY_ABOVE, COPY_REFERENCE = 64, 65
MARGIN = 3


class Values:
    """Lanes, words and raw bits."""

    def __init__(self, raw: bytes, coded: bytes) -> None:
        self.lanes = [int.from_bytes(coded[4 * k : 4 * k + 4], "little") for k in range(8)]
        self.words: list[int] = np.frombuffer(coded, "<u2", len(coded) // 2 - 16, 32).tolist()
        self.word = 0
        self.raw, self.raw_at, self.kept, self.kept_bits = raw, 0, 0, 0

    def row(self, tables: Sequence[Table | None]) -> list[int]:
        """A value for each column that has a table, -1 for the spike; 0 for other columns."""
        lanes, found = self.lanes, []
        for column, table in enumerate(tables):
            if table is None:
                found.append(0)
                continue
            state = lanes[column % 8]
            slot = state % 2048
            state = (table.frequency[slot] * (state // 2048) + table.above[slot]) & MASK
            if state < 65536:
                demand(self.word < len(self.words), "the words end")
                state = state * 65536 + self.words[self.word]
                self.word += 1
            lanes[column % 8] = state
            value = table.base[slot]
            found.append(value + self.bits(table.raw[slot]) if table.raw[slot] else value)
        return found

    def bits(self, count: int) -> int:
        """A number of so many raw bits."""
        while self.kept_bits < count:
            demand(self.raw_at < len(self.raw), "the raw bits end")
            self.kept |= self.raw[self.raw_at] << self.kept_bits
            self.raw_at, self.kept_bits = self.raw_at + 1, self.kept_bits + 8
        found = self.kept & (1 << count) - 1
        self.kept >>= count
        self.kept_bits -= count
        return found


class Frame:
    """Planes of samples, errors and marks with their padding; (0, 0) is at [MARGIN, MARGIN]."""

    def __init__(self, stack: Stack, reference: Frame | None) -> None:
        size = (stack.rows + MARGIN + 2, stack.columns + 2 * MARGIN)
        self.samples, self.errors, self.marks = (np.zeros(size, np.int64) for _ in range(3))
        self.rows, self.columns = stack.rows, stack.columns
        if reference is not None:
            inside = np.clip(np.arange(-MARGIN, stack.columns + MARGIN), 0, stack.columns - 1) + MARGIN
            for own, other in zip(self.planes(), reference.planes(), strict=True):
                own[:MARGIN] = other[MARGIN, inside]

    def planes(self) -> tuple[Array, Array, Array]:
        """All planes."""
        return self.samples, self.errors, self.marks

    def place(self, plane: Array, row: int, column: int) -> Array:
        """What a plane holds in a row, for all columns, a distance from each."""
        return plane[MARGIN + row, MARGIN + column : MARGIN + column + self.columns]

    def pad_row(self, row: int) -> None:
        """Fill what is right and left of a row whose samples are known."""
        for plane in self.planes():
            line = plane[MARGIN + row]
            line[MARGIN + self.columns :] = line[MARGIN + self.columns - 1]
            line[:MARGIN] = line[MARGIN]
        self.samples[MARGIN + row, :MARGIN] = self.samples[MARGIN + row - 1, MARGIN]

    def finish(self) -> None:
        """Fill the rows below."""
        for plane in self.planes():
            plane[MARGIN + self.rows :] = plane[MARGIN + self.rows - 1]


class Decoder:
    """Decodes the frames of a coded stream one after the other."""

    def __init__(self, stack: Stack, side: SideReader, values: Values) -> None:
        self.stack, self.side, self.values = stack, side, values
        self.header = read_header(side, stack)
        across = -(-stack.columns // self.header.block)
        self.before = np.zeros((-(-stack.rows // self.header.block), across), np.int64)
        self.same, self.second, self.third, self.tree = Models(5), Models(3), Models(2), Models(128)
        self.frames: list[Frame] = []

    def frame(self) -> Array:
        """Decode the next frame."""
        number = len(self.frames)
        references = [self.frames[one] for one in self.header.references(number)]
        frame = Frame(self.stack, references[0] if references else None)
        classes = np.zeros_like(self.before)
        for row in range(self.stack.rows):
            if row % self.header.block == 0:
                self._classes(classes, row // self.header.block, len(references))
            self._row(frame, references, row, classes[row // self.header.block])
        frame.finish()
        self.before = classes
        self.frames.append(frame)
        out = frame.samples[MARGIN : MARGIN + self.stack.rows, MARGIN : MARGIN + self.stack.columns]
        out = out + (1 << self.header.bits - 1)
        if self.header.occurring is not None:
            out = self.header.occurring[np.minimum(out, len(self.header.occurring) - 1)]
        return out

    def _classes(self, classes: Array, row: int, stage: int) -> None:
        known = set(range(len(self.header.classes[stage]))) | {COPY_ABOVE}
        if stage:
            known.add(COPY_REFERENCE)
        for column in range(classes.shape[1]):
            before = int(self.before[row, column])
            above = int(classes[row - 1, column]) if row else before
            left = int(classes[row, column - 1]) if column else above
            found = self._class(left, above, before)
            demand(found in known, "no such class")
            classes[row, column] = found

    def _class(self, left: int, above: int, before: int) -> int:
        if left == above:
            index = int(above != before)
        else:
            index = 2 if above == before else 3 if left == before else 4
        if self.side.modelled(self.same, index):
            return above
        if left != above and self.side.modelled(self.second, index - 2):
            return left
        if before not in {above, left} and self.side.modelled(self.third, int(left == above)):
            return before
        return self.side.tree(self.tree, 7)

    def _row(self, frame: Frame, references: list[Frame], row: int, blocks: Array) -> None:
        header, stage = self.header, len(references)
        classes = np.repeat(blocks, header.block)[: self.stack.columns]
        shifts = np.array([one.shift for one in header.classes[stage]])
        coded = classes < COPY_ABOVE
        shift = shifts[np.where(coded, classes, 0)]
        contexts = self._contexts(frame, references, row) + shift
        tables = [
            header.tables[header.table_of[context]] if has_value else None
            for context, has_value in zip(contexts.tolist(), coded.tolist(), strict=True)
        ]
        values: Array = np.array(self.values.row(tables), np.int64)
        spikes = coded & (values < 0)
        residuals: Array = np.where(values % 2 == 1, -(values // 2) - 1, values // 2)
        residuals[spikes] = 0
        frame.place(frame.errors, row, 0)[:] = np.minimum(2047, abs(residuals) >> header.error_shift)
        frame.place(frame.marks, row, 0)[:] = spikes
        self._samples(frame, references, row, classes, residuals, spikes)
        frame.pad_row(row)

    def _contexts(self, frame: Frame, references: list[Frame], row: int) -> Array:
        def error(y: int, x: int) -> Array:
            return frame.place(frame.errors, row + y, x)

        sums = 3 * error(-1, 0) + 2 * (error(-1, -1) + error(-1, 1)) + error(-1, -2) + error(-1, 2)
        sums = sums + error(-2, -1) + error(-2, 0) + error(-2, 1)
        marks = sum(frame.place(frame.marks, row - 1, x) for x in (-1, 0, 1))
        if references:
            other = references[0]

            def earlier(y: int, x: int) -> Array:
                return other.place(other.errors, row + y, x)

            sums = sums + 2 * earlier(0, 0) + earlier(0, -1) + earlier(0, 1) + earlier(1, 0)
            sums = sums + (earlier(1, -1) + earlier(1, 1)) // 2
            marks = marks + other.place(other.marks, row, 0)
        else:
            sums = sums + sums // 2
            marks = marks + frame.place(frame.marks, row - 2, 0)
        logs: Array = np.frexp((sums + 1).astype(np.float64))[1].astype(np.int64) - 1
        below: Array = np.left_shift(sums + 1, 2)
        activity = 4 * logs + (np.right_shift(below, logs) & 3)
        surround = (marks + 1) // 2 if self.header.spike is not None else 0
        surround = np.minimum(surround, 2)
        return np.asarray(84 * surround + 10 + activity)

    def _samples(
        self,
        frame: Frame,
        references: list[Frame],
        row: int,
        classes: Array,
        residuals: Array,
        spikes: Array | npt.NDArray[np.bool_],
    ) -> None:
        header, stage = self.header, len(references)
        predictors, fraction = header.classes[stage], header.fraction
        index = np.where(classes < COPY_ABOVE, classes, 0)
        weights = np.array([one.weights for one in predictors])[index]
        sums = np.array([one.offset for one in predictors])[index] + (residuals << fraction)
        planes = [frame, *references]
        for number, (reference, y, x) in enumerate(header.taps[stage][2:], 2):
            plane = planes[reference]
            sums = sums + weights[:, number] * plane.place(plane.samples, row + y, x)
        half = 1 << header.bits - 1
        fixed = frame.place(frame.samples, row - 1, 0).copy()
        if references:
            there = references[0].place(references[0].samples, row, 0)
            fixed = np.where(classes == COPY_REFERENCE, there, fixed)
        if header.spike is not None:
            fixed = np.where(spikes, header.spike - half, fixed)
        known = (spikes | (classes >= COPY_ABOVE)).tolist()
        one = two = int(frame.samples[MARGIN + row - 1, MARGIN])
        line: list[int] = []
        columns: list[Any] = [sums.tolist(), weights[:, 0].tolist(), weights[:, 1].tolist(), fixed.tolist()]
        for total, first, second, value, is_known in zip(*columns, known, strict=True):
            if not is_known:
                total = (total + first * one + second * two + 2**31) % 2**32 - 2**31
                value = total >> fraction
                demand(-half <= value < half, "a sample out of range")
            line.append(value)
            one, two = value, one
        frame.place(frame.samples, row, 0)[:] = line


def _stored(stack: Stack, data: bytes) -> Array:
    demand(len(data) == (stack.samples * stack.bits + 7) // 8, "stored samples of another length")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=stack.samples * stack.bits, bitorder="little")
    return bits.reshape(-1, stack.bits).astype(np.int64) @ (1 << np.arange(stack.bits))


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """A LEB128 number and where it ends; raises Damaged."""
    value = 0
    for count in range(5):
        demand(at + count < len(data), "a length is cut off")
        value |= (data[at + count] & 127) << 7 * count
        if data[at + count] < 128:
            return value, at + count + 1
    raise Damaged("a length of more than five bytes")


def decode(stack: Stack, stream: bytes) -> Array:
    """Samples of all frames, (frames, rows, columns); raises Damaged."""
    size = (stack.frames, stack.rows, stack.columns)
    demand(len(stream) >= 2 and stream[0] == 1 and stream[1] < 2, "an unknown version or mode")
    if stream[1] == 0:
        return _stored(stack, stream[2:]).reshape(size)
    side_bytes, at = leb128(stream, 2)
    raw_bytes, at = leb128(stream, at)
    raw_at, coded_at = at + side_bytes, at + side_bytes + raw_bytes
    demand(coded_at + 32 <= len(stream), "parts that do not fit")
    values = Values(stream[raw_at:coded_at], stream[coded_at:])
    decoder = Decoder(stack, SideReader(stream[at:raw_at]), values)
    return np.stack([decoder.frame() for _ in range(stack.frames)])
