"""Words of 32 and 64 bits, integers and floating point, as planes of 16 bits that image codecs take.

Owns the way from words to such planes and back, and the header that says which it was; what codes a plane is
``segment``'s.

Words become *numbers* in the order of their values, where neighbours in the image are neighbours: of signed
ones the sign bit is flipped, of floating point also all other bits of negative ones.  Where there are few
distinct numbers, each is replaced by its rank among them: so integers with a common factor and measurements
that were scaled become what they were.  Otherwise the least one is subtracted, and, where it makes them
smaller, numbers are replaced by what a plane through three neighbours leaves of them.  Numbers of more than
16 bits are cut from the top: what is noise stays below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import join_streams, split_streams
from dicomfs.codec.zstd import expand, squeeze
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

_HEADER = struct.Struct("<BBQI")
_BIG_ENDIAN, _FLOATING, _RANKS, _SLOPES, _SIGNED = 1, 2, 4, 8, 16
_PLANE_BITS = 16
_MOST_RANKS = 1 << _PLANE_BITS
_FEW = 16
"""Where each number occurs so often on average, ranks are sure to be smaller."""
_SHOWN_ROWS = 64
_NOISE_BITS = 1.0
"""By which three noisy neighbours predict worse than what our own codecs make of them."""
_TABLE_LEVEL = 19
NAME = "wide"

Numbers = npt.NDArray[np.unsignedinteger[Any]]
Narrow = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Wide:
    """How the words of a band became planes."""

    flags: int
    bits: int
    """Of the numbers that were cut into planes."""
    least: int
    """What was subtracted from them before."""
    table: Numbers
    """The number of each rank, rising; empty without ranks."""

    @property
    def planes(self) -> int:
        """How many planes there are; none where all numbers are the same."""
        return -(-self.bits // _PLANE_BITS)

    def shifts(self) -> list[tuple[int, int]]:
        """(bits below, bits) of each plane, the highest first."""
        found, left = [], self.bits
        while left:
            width = min(_PLANE_BITS, left)
            left -= width
            found.append((left, width))
        return found


def is_wide(layout: PixelLayout) -> bool:
    """Whether a layout has words that are cut into planes."""
    return layout.bits_allocated in (32, 64)


def narrow(layout: PixelLayout) -> PixelLayout:
    """The layout of a plane."""
    return PixelLayout(layout.rows, layout.columns, layout.samples, 16, 16, 15, signed=False)


Cut = tuple[Wide, list[Narrow]]


def cuts(raw: npt.NDArray[np.uint8], layout: PixelLayout, rows: int) -> Iterator[Cut]:
    """Ways to make planes of a band worth a trial; planes are (frames, rows, columns × samples)."""
    stored = np.dtype(f"{'>' if layout.big_endian else '<'}u{layout.bits_allocated // 8}")
    words = raw.reshape(-1).view(stored).reshape(len(raw), rows, -1)
    numbers = words.astype(stored.newbyteorder("="))
    flags = _BIG_ENDIAN if layout.big_endian else 0
    if layout.is_float:
        flags |= _FLOATING
        numbers = _ordered(numbers)
    elif layout.signed:
        flags |= _SIGNED
        numbers = _turned(numbers)
    table = _table(numbers)
    if table is not None:
        ranks = np.searchsorted(table, numbers).astype(numbers.dtype)
        yield _planes(flags | _RANKS, ranks, 0, table)
        if _FEW * len(table) <= numbers.size:
            return
    least = int(numbers.min())
    numbers -= numbers.dtype.type(least)
    sloped = _sloped(numbers, layout.samples)
    if _worth_levelling(numbers, sloped, layout.samples):
        flags, numbers = flags | _SLOPES, sloped
    yield _planes(flags, numbers, least, numbers[:0, 0, 0])


def _planes(flags: int, numbers: Numbers, least: int, table: Numbers) -> Cut:
    wide = Wide(flags, int(numbers.max()).bit_length(), least, table)
    return wide, [
        (numbers >> numbers.dtype.type(shift)).astype(np.uint16) & np.uint16((1 << width) - 1)
        for shift, width in wide.shifts()
    ]


def joined(wide: Wide, planes: Sequence[Narrow], shape: tuple[int, int], layout: PixelLayout) -> bytes:
    """The raw bytes of one frame of a band from its planes, each of ``shape`` (rows, columns × samples)."""
    word = np.dtype(f"u{layout.bits_allocated // 8}")
    numbers: Numbers = np.zeros(shape, word)
    for (shift, _), plane in zip(wide.shifts(), planes, strict=True):
        numbers |= plane.reshape(shape).astype(word) << word.type(shift)
    if wide.flags & _RANKS:
        if numbers.size and int(numbers.max()) >= len(wide.table):
            raise CodecError(NAME, "a rank beyond the table")
        numbers = wide.table[numbers]
    else:
        if wide.flags & _SLOPES:
            numbers = _level(numbers, layout.samples)
        numbers += word.type(wide.least)
    if wide.flags & _FLOATING:
        numbers = _unordered(numbers)
    elif wide.flags & _SIGNED:
        numbers = _turned(numbers)
    return numbers.astype(word.newbyteorder(">" if wide.flags & _BIG_ENDIAN else "<")).tobytes()


def pack(wide: Wide, streams: Sequence[bytes]) -> bytes:
    """The payload of a band: header, table, a stream for each plane."""
    table = squeeze(_shuffled(np.diff(wide.table, prepend=wide.table.dtype.type(0))), _TABLE_LEVEL)
    head = _HEADER.pack(wide.flags, wide.bits, wide.least, len(wide.table))
    return head + join_streams([table, *streams] if len(wide.table) else streams)


def unpack(payload: memoryview, layout: PixelLayout) -> tuple[Wide, list[memoryview]]:
    """What `pack` was given; raises `CodecError` when it makes no sense."""
    if len(payload) < _HEADER.size:
        raise CodecError(NAME, "the header is cut off")
    flags, bits, least, count = _HEADER.unpack_from(payload)
    word = np.dtype(f"<u{layout.bits_allocated // 8}")
    known = _BIG_ENDIAN | _FLOATING | _RANKS | _SLOPES | _SIGNED
    if (
        flags & ~known
        or bits > layout.bits_allocated
        or least >> layout.bits_allocated
        or bool(flags & _RANKS) != bool(count)
        or count > _MOST_RANKS
        or (flags & _FLOATING and flags & _SIGNED)
        or (flags & _RANKS and (flags & _SLOPES or least or bits > _PLANE_BITS))
    ):
        raise CodecError(NAME, "the header is damaged")
    planes = -(-bits // _PLANE_BITS)
    streams = split_streams(NAME, payload[_HEADER.size :], planes + bool(count))
    table: Numbers = np.zeros(0, word)
    if count:
        shuffled = np.frombuffer(expand(streams.pop(0), count * word.itemsize), np.uint8)
        steps = np.ascontiguousarray(shuffled.reshape(word.itemsize, count).T).reshape(-1).view(word)
        table = np.add.accumulate(steps, dtype=word)
    return Wide(flags, bits, least, table.astype(word.newbyteorder("="))), streams


def _shuffled(numbers: Numbers) -> bytes:
    little = np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<")))
    return little.view(np.uint8).reshape(-1, little.itemsize).T.tobytes()


def _turned(words: Numbers) -> Numbers:
    """Signed words in the order of their values, and back."""
    found: Numbers = words ^ words.dtype.type(1 << (8 * words.itemsize - 1))
    return found


def _ordered(words: Numbers) -> Numbers:
    top = words.dtype.type(1 << (8 * words.itemsize - 1))
    found: Numbers = np.where(words & top, ~words, words | top)
    return found


def _unordered(numbers: Numbers) -> Numbers:
    top = numbers.dtype.type(1 << (8 * numbers.itemsize - 1))
    found: Numbers = np.where(numbers & top, numbers & ~top, ~numbers)
    return found


def _table(numbers: Numbers) -> Numbers | None:
    """The distinct numbers, where they are few."""
    most = min(_MOST_RANKS, numbers.size // 2)
    sample = numbers.reshape(-1)[: 4 * most]
    if len(np.unique(sample)) > most:
        return None
    found: Numbers = np.unique(numbers)
    return found if len(found) <= most else None


def _sloped(numbers: Numbers, samples: int) -> Numbers:
    """Each number without left + above − above left (0 outside), of either sign, as numbers from 0."""
    steps = numbers.copy()
    steps[:, :, samples:] -= numbers[:, :, :-samples]
    found = steps.copy()
    found[:, 1:] -= steps[:, :-1]
    top = found.dtype.type(8 * found.itemsize - 1)
    negative = (found >> top).astype(np.bool_)
    return np.where(negative, ~(found << found.dtype.type(1)), found << found.dtype.type(1))


def _level(numbers: Numbers, samples: int) -> Numbers:
    """Undo `_sloped` for one frame, (rows, columns × samples)."""
    one = numbers.dtype.type(1)
    steps = np.where(numbers & one, ~(numbers >> one), numbers >> one)
    steps = np.add.accumulate(steps, axis=0, dtype=numbers.dtype)
    by_sample = steps.reshape(len(steps), -1, samples)
    found: Numbers = np.add.accumulate(by_sample, axis=1, dtype=numbers.dtype).reshape(numbers.shape)
    return found


def _worth_levelling(numbers: Numbers, sloped: Numbers, samples: int) -> bool:
    """Whether slopes are so even that they say something of the bits that a codec of 16 does not see."""
    below = max(0, int(numbers.max()).bit_length() - _PLANE_BITS)
    upper = _sloped(numbers >> numbers.dtype.type(below), samples)
    return _bits(upper) + below > _bits(sloped) + _NOISE_BITS


def _bits(sloped: Numbers) -> float:
    """What a number takes on average, estimated on rows of a middle frame."""
    middle = sloped[len(sloped) // 2]
    return float(np.log2(1.0 + middle[:: max(1, len(middle) // _SHOWN_ROWS)]).mean())
