"""Columns of byte strings in a block of columns: what stands at one place in many headers.

Owns the stored forms of such a column and their bounded decoding.  Which form a column gets is chosen in
`token_forms`; which bytes make a column, in `header_model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicomfs.errors import DamagedError
from dicomfs.format.varints import Numbers
from dicomfs.format.vectors import Int64s, VectorReader

STRINGS, FIXED, TABLE, BINARY, DECIMAL, TIME, DIGITS = range(7)
STRIP_ZEROS, FILL_ZEROS = 1, 2
MAX_DECIMALS = 18
MAX_FILL = 64
MAX_TOKENS = 1 << 20
"""Elements of all columns of one block together."""
_MAX_DIGIT_BITS = 1 << 12
_SPACE, _ZERO = b" ", b"0"


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How a number is written as text: ``decimals`` digits behind a point, ``width`` characters at least."""

    decimals: int = 0
    flags: int = 0
    width: int = 0

    def write(self, values: list[int]) -> list[bytes]:
        """The texts of ``values``, in units of the last decimal."""
        if self.decimals:
            texts = [self._fraction(value) for value in values]
        else:
            texts = [b"%d" % value for value in values]
        if self.width:
            fill = _ZERO if self.flags & FILL_ZEROS else _SPACE
            texts = [text.rjust(self.width, fill) for text in texts]
        return texts

    def _fraction(self, value: int) -> bytes:
        digits = b"%0*d" % (self.decimals + 1, abs(value))
        whole, rest = digits[: -self.decimals], digits[-self.decimals :]
        if self.flags & STRIP_ZEROS:
            rest = rest.rstrip(_ZERO)
        text = whole + b"." + rest if rest else whole
        return b"-" + text if value < 0 else text

    def write_time(self, values: list[int]) -> list[bytes]:
        """Hours, minutes and seconds as six digits, then the fraction; ``values`` since midnight."""
        unit = 10**self.decimals
        texts = []
        for value in values:
            seconds, rest = divmod(value, unit)
            text = b"%02d%02d%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
            texts.append(text + b".%0*d" % (self.decimals, rest) if self.decimals else text)
        return texts


@dataclass(slots=True)
class Streams:
    """The streams of a block that columns are read from."""

    program: Numbers
    text: Numbers
    raw: Numbers
    vectors: VectorReader
    artefact: str
    plain: int
    """Bytes of the block: no column has more."""
    tokens: int = MAX_TOKENS
    """How many elements may still be decoded."""

    def spend(self, count: int) -> None:
        """Count elements before they are made; DamagedError when the block has too many."""
        self.tokens -= count
        if self.tokens < 0:
            raise DamagedError(self.artefact, "too many elements in a header block")


def read_column(streams: Streams, count: int, *, nested: bool = False) -> list[bytes]:
    """The next column, of ``count`` elements; DamagedError."""
    streams.spend(count)
    form = streams.program.unsigned(DIGITS)
    if nested and form == TABLE:
        raise DamagedError(streams.artefact, "a table in a table")
    if form == STRINGS:
        return _strings(streams, count)
    if form == FIXED:
        return _fixed(streams, count)
    if form == TABLE:
        return _table(streams, count)
    if form == BINARY:
        return _binary(streams, count)
    if form == DIGITS:
        return _digits(streams, count)
    return _numbers(streams, count, form)


def _strings(streams: Streams, count: int) -> list[bytes]:
    lengths = streams.vectors.take(count)
    _check(streams, lengths, streams.plain)
    if count and int(lengths.astype(np.float64).sum()) > streams.plain:
        raise DamagedError(streams.artefact, "a column is longer than its block")
    return [streams.text.take(length) for length in lengths.tolist()]


def _fixed(streams: Streams, count: int) -> list[bytes]:
    width = streams.program.unsigned(streams.plain)
    if width * count > streams.plain:
        raise DamagedError(streams.artefact, "a column is longer than its block")
    planes = np.frombuffer(streams.raw.take(width * count), np.uint8).reshape(width, count)
    rows = planes.T.tobytes()
    return [rows[at : at + width] for at in range(0, width * count, width)] if width else [b""] * count


def _table(streams: Streams, count: int) -> list[bytes]:
    size = streams.program.unsigned(MAX_TOKENS)
    values = read_column(streams, size, nested=True)
    indices = streams.vectors.take(count)
    _check(streams, indices, size - 1)
    return [values[index] for index in indices.tolist()]


def _binary(streams: Streams, count: int) -> list[bytes]:
    what = streams.program.unsigned(17)
    width, order = what >> 1, ">" if what & 1 else "<"
    if not 1 <= width <= 8:
        raise DamagedError(streams.artefact, "impossible width of a number")
    whole = streams.vectors.take(count).astype(order + "i8").view(np.uint8).reshape(count, 8)
    rows = (whole[:, 8 - width :] if what & 1 else whole[:, :width]).tobytes()
    return [rows[at : at + width] for at in range(0, width * count, width)]


def _numbers(streams: Streams, count: int, form: int) -> list[bytes]:
    decimals, flags = streams.program.unsigned(MAX_DECIMALS), streams.program.unsigned(3)
    written = NumberFormat(decimals, flags, streams.program.unsigned(MAX_FILL))
    values = streams.vectors.take(count)
    if form == DECIMAL:
        return written.write(values.tolist())
    _check(streams, values, 360_000 * 10**decimals - 1)
    return written.write_time(values.tolist())


def _digits(streams: Streams, count: int) -> list[bytes]:
    bits, width = streams.program.unsigned(_MAX_DIGIT_BITS), streams.program.unsigned(MAX_FILL)
    packed = streams.raw.take((bits * count + 7) // 8)
    mask = (1 << bits) - 1
    texts = []
    # 64 elements fill whole bytes: shifting all of a long column for each element would cost its square.
    for start in range(0, count, 64):
        group = int.from_bytes(packed[start * bits // 8 : (start + 64) * bits // 8], "little")
        texts += [b"%0*d" % (width, group >> bits * at & mask) for at in range(min(64, count - start))]
    return texts


def _check(streams: Streams, values: Int64s, largest: int) -> None:
    if len(values) and (int(values.min()) < 0 or int(values.max()) > largest):
        raise DamagedError(streams.artefact, "number out of range in a column")
