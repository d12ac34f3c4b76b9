"""Vectors of integers in a block of columns: which of the numbers of many headers follow from others.

Owns the choice of the shortest form, and its bounded decoding.  Unlike the columns of an instance table
(`columns`), a vector may refer to an earlier one: a window's width to its centre, a slice's location to its
position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError
from dicomfs.format.compression import compress
from dicomfs.format.varints import Numbers, put_signed, put_unsigned

CONSTANT, PROGRESSION, VALUES, DIFFERENCES, MULTIPLE, NEAR_MULTIPLE = range(6)
_TRIAL_LEVEL = 3
_FRACTION_BITS = 16
_MAX_FACTOR = 1 << 40
_MOST_COMPARED = 64
"""Earlier vectors that one is compared with."""
Int64s = npt.NDArray[np.int64]


@dataclass(slots=True)
class VectorWriter:
    """Writes vectors one after the other; ``program`` gets their forms, ``data`` their bytes."""

    program: bytearray
    data: bytearray
    _known: dict[tuple[int, bytes], tuple[int, Int64s, int]] = field(default_factory=dict)
    """(length, vector without offset and factor) -> its number, values and factor."""
    _written: list[Int64s] = field(default_factory=list)

    def put(self, values: Int64s) -> None:
        """Append a vector in its shortest form."""
        number = len(self._written)
        self._written.append(values)
        steps = _wrapped(values[1:], values[:-1])
        if not steps.any():
            put_unsigned(self.program, CONSTANT)
            put_signed(self.program, int(values[0]) if len(values) else 0)
            return
        if (steps == steps[0]).all():
            put_unsigned(self.program, PROGRESSION)
            put_signed(self.program, int(values[0]))
            put_signed(self.program, int(steps[0]))
            return
        if self._put_multiple(number, values):
            return
        self._put_planes(values, steps, number)

    def _put_multiple(self, number: int, values: Int64s) -> bool:
        """Refer to an earlier vector of which this is a multiple, but for an offset."""
        if max(int(values.max()), -int(values.min())) > 1 << 61:
            return False  # differences would not fit
        offsets = values - values[0]
        factor = int(np.gcd.reduce(offsets))
        if int(offsets[offsets != 0][0]) < 0:
            factor = -factor
        key = (len(values), (offsets // factor).tobytes())
        if key not in self._known:
            self._known[key] = (number, values, factor)
            return False
        base, _, divisor = self._known[key]
        common = math.gcd(factor, divisor)
        put_unsigned(self.program, MULTIPLE)
        put_unsigned(self.program, number - base - 1)
        put_signed(self.program, int(values[0]))
        put_signed(self.program, factor // common)
        put_signed(self.program, divisor // common)
        return True

    def _put_planes(self, values: Int64s, steps: Int64s, number: int) -> None:
        by_value = _planes(values)
        forms = [(VALUES, b"", by_value), (DIFFERENCES, _signed(int(values[0])), _planes(steps))]
        near = self._near_multiple(values, number)
        if near is not None:
            forms.append(near)
        form, start, (least, width, planes) = min(
            forms, key=lambda one: len(one[1]) + len(compress(one[2][2], _TRIAL_LEVEL))
        )
        put_unsigned(self.program, form)
        self.program += start
        put_signed(self.program, least)
        put_unsigned(self.program, width)
        self.data += planes

    def _near_multiple(self, values: Int64s, number: int) -> tuple[int, bytes, tuple[int, int, bytes]] | None:
        """The earlier vector of the same length that predicts this one best."""
        if int(np.abs(values).max()) >= 1 << 31 or int(np.abs(values).min()) < 0:
            return None
        best = None
        centred = values - values.mean()
        spread = float(np.square(centred).sum())
        for base, other, _ in list(self._known.values())[-_MOST_COMPARED:]:
            if len(other) != len(values) or base == number or int(np.abs(other).max()) >= 1 << 31:
                continue
            about = other - other.mean()
            product = float((about * centred).sum())
            likeness = product * product / (spread * float(np.square(about).sum()))
            if likeness > 0.99 and (best is None or likeness > best[0]):
                best = (likeness, base, other, product / float(np.square(about).sum()))
        if best is None:
            return None
        _, base, other, slope = best
        factor = round(slope * (1 << _FRACTION_BITS))
        if not 0 < abs(factor) < 1 << 31:
            return None
        rest = values - ((other * factor) >> _FRACTION_BITS)
        start = bytearray()
        put_unsigned(start, number - base - 1)
        put_signed(start, factor)
        return NEAR_MULTIPLE, bytes(start), _planes(rest)


class VectorReader:
    """Reads vectors in the order in which they were written; DamagedError."""

    def __init__(self, program: Numbers, data: Numbers, artefact: str) -> None:
        self._program, self._data, self._artefact = program, data, artefact
        self._read: list[Int64s] = []

    def take(self, count: int) -> Int64s:
        """The next vector of ``count`` elements; the caller has bounded ``count``.  Modulo 2**64."""
        values = self._take(count)
        self._read.append(values)
        return values

    def _take(self, count: int) -> Int64s:
        form = self._program.unsigned(NEAR_MULTIPLE)
        if form == CONSTANT:
            return np.full(count, self._program.signed(), dtype=np.int64)
        if form == PROGRESSION:
            first, step = self._number(), self._number()
            return (first + np.arange(count, dtype=np.uint64) * step).view(np.int64)
        if form == VALUES:
            return self._planes(count).view(np.int64)
        if form == DIFFERENCES:
            first = self._number()
            if not count:
                raise DamagedError(self._artefact, "differences of nothing")
            steps = self._planes(count - 1)
            return np.cumsum(np.concatenate((np.array([first]), steps)), dtype=np.uint64).view(np.int64)
        base = self._base(count)
        if form == MULTIPLE:
            return self._multiple(base)
        factor = np.int64(self._program.signed())
        with np.errstate(over="ignore"):
            near = (base * factor) >> np.int64(_FRACTION_BITS)
        return (near.view(np.uint64) + self._planes(count)).view(np.int64)

    def _base(self, count: int) -> Int64s:
        back = self._program.unsigned(1 << 32)
        if back >= len(self._read) or len(self._read[-1 - back]) != count or not count:
            raise DamagedError(self._artefact, "a vector refers to none of its length")
        return self._read[-1 - back]

    def _multiple(self, base: Int64s) -> Int64s:
        first, factor, divisor = self._number(), self._program.signed(), self._program.signed()
        if not 0 < abs(divisor) <= _MAX_FACTOR or not 0 < abs(factor) <= _MAX_FACTOR:
            raise DamagedError(self._artefact, "impossible factor of a vector")
        units = (base.view(np.uint64) - base.view(np.uint64)[0]).view(np.int64) // np.int64(divisor)
        with np.errstate(over="ignore"):
            values: Int64s = (first + (units * np.int64(factor)).view(np.uint64)).view(np.int64)
        return values

    def _number(self) -> np.uint64:
        return np.uint64(self._program.signed() & (1 << 64) - 1)

    def _planes(self, count: int) -> npt.NDArray[np.uint64]:
        least, width = self._number(), self._program.unsigned(8)
        planes = np.frombuffer(self._data.take(count * width), np.uint8).reshape(width, count)
        full = np.zeros((count, 8), dtype=np.uint8)
        full[:, :width] = planes.T
        return full.reshape(-1).view("<u8").astype(np.uint64) + least


def _wrapped(values: Int64s, before: Int64s) -> Int64s:
    return (values.view(np.uint64) - before.view(np.uint64)).view(np.int64)


def _signed(value: int) -> bytes:
    out = bytearray()
    put_signed(out, value)
    return bytes(out)


def _planes(values: Int64s) -> tuple[int, int, bytes]:
    """Least value, bytes for what is above it, and these plane by plane, the least significant first."""
    least = int(values.min())
    above = values.view(np.uint64) - np.array([least], dtype=np.int64).view(np.uint64)
    width = (int(above.max()).bit_length() + 7) // 8
    planes = above.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T
    return least, width, planes.tobytes()
