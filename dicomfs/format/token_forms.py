"""The form that a column of byte strings gets: text that is a number as a number, few values as a table.

Owns the choice and the writing; the forms and their reading are in `tokens`.  Only what comes back exactly is
written as a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dicomfs.format.compression import compress
from dicomfs.format.tokens import (
    BINARY,
    DECIMAL,
    DIGITS,
    FILL_ZEROS,
    FIXED,
    MAX_DECIMALS,
    MAX_FILL,
    STRINGS,
    STRIP_ZEROS,
    TABLE,
    TIME,
    NumberFormat,
)
from dicomfs.format.varints import put_unsigned
from dicomfs.format.vectors import Int64s, VectorWriter

_NUMBER = re.compile(rb"( *)(-?)([0-9]+)(?:\.([0-9]+))?")
_TIME = re.compile(rb"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])(?:\.([0-9]+))?")
_LARGEST = 1 << 62
_TRIAL_LEVEL = 3


@dataclass(slots=True)
class StreamsWriter:
    """The streams of a block being written."""

    program: bytearray = field(default_factory=bytearray)
    text: bytearray = field(default_factory=bytearray)
    numbers: bytearray = field(default_factory=bytearray)
    raw: bytearray = field(default_factory=bytearray)
    vectors: VectorWriter = field(init=False)

    def __post_init__(self) -> None:
        self.vectors = VectorWriter(self.program, self.numbers)


def put_column(out: StreamsWriter, values: Sequence[bytes]) -> None:
    """Append a column in the form that suits its values."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) <= len(values) // 2:
        put_unsigned(out.program, TABLE)
        put_unsigned(out.program, len(distinct))
        _put_values(out, distinct)
        numbers = {value: number for number, value in enumerate(distinct)}
        out.vectors.put(np.array([numbers[value] for value in values], dtype=np.int64))
    else:
        _put_values(out, values)


def _put_values(out: StreamsWriter, values: Sequence[bytes]) -> None:
    if not (_put_numbers(out, values) or _put_digits(out, values) or _put_binary(out, values)):
        _put_bytes(out, values)


def _put_bytes(out: StreamsWriter, values: Sequence[bytes]) -> None:
    width = len(values[0]) if values else 0
    joined = b"".join(values)
    if width > 1 and all(len(value) == width for value in values):
        planes = np.frombuffer(joined, np.uint8).reshape(len(values), width).T.tobytes()
        if len(compress(planes, _TRIAL_LEVEL)) < len(compress(joined, _TRIAL_LEVEL)):
            put_unsigned(out.program, FIXED)
            put_unsigned(out.program, width)
            out.raw += planes
            return
    put_unsigned(out.program, STRINGS)
    out.vectors.put(np.array([len(value) for value in values], dtype=np.int64))
    out.text += joined


def _put_numbers(out: StreamsWriter, values: Sequence[bytes]) -> bool:
    for form, found in ((TIME, _times(values)), (DECIMAL, _decimals(values))):
        if found is None:
            continue
        written, numbers = found
        texts = written.write_time(numbers) if form == TIME else written.write(numbers)
        if texts == list(values):
            put_unsigned(out.program, form)
            put_unsigned(out.program, written.decimals)
            put_unsigned(out.program, written.flags)
            put_unsigned(out.program, written.width)
            out.vectors.put(np.array(numbers, dtype=np.int64))
            return True
    return False


def _decimals(values: Sequence[bytes]) -> tuple[NumberFormat, list[int]] | None:
    """How all values are written, if they may be numbers, and the numbers."""
    matches = [_NUMBER.fullmatch(value) for value in values]
    if not matches or not all(matches):
        return None
    parts = [match.groups(b"") for match in matches if match]
    decimals = max(len(part[3]) for part in parts)
    if decimals > MAX_DECIMALS or max(len(part[2]) for part in parts) + decimals > MAX_DECIMALS:
        return None
    flags = STRIP_ZEROS if any(len(part[3]) != decimals for part in parts) else 0
    width = 0
    if len(set(map(len, values))) == 1 and len(values[0]) <= MAX_FILL:
        if any(part[0] for part in parts):
            width = len(values[0])
        elif not decimals and any(part[2].startswith(b"0") for part in parts):
            flags, width = flags | FILL_ZEROS, len(values[0])
    numbers = [int(part[1] + part[2] + part[3].ljust(decimals, b"0")) for part in parts]
    return NumberFormat(decimals, flags, width), numbers


def _times(values: Sequence[bytes]) -> tuple[NumberFormat, list[int]] | None:
    """As times of a day, all with as many decimals; whole seconds may be any number of six digits."""
    matches = [_TIME.fullmatch(value) for value in values]
    if not matches or not all(matches):
        return None
    parts = [match.groups(b"") for match in matches if match]
    decimals = len(parts[0][3])
    if not decimals or decimals > 9:
        return None
    numbers = []
    for hours, minutes, seconds, rest in parts:
        whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
        numbers.append(whole * 10**decimals + int(rest.ljust(decimals, b"0")[:decimals]))
    return NumberFormat(decimals), numbers


def _put_digits(out: StreamsWriter, values: Sequence[bytes]) -> bool:
    """Long random numbers, as UIDs made of UUIDs have them."""
    if not values or not all(value.isdigit() and len(value) <= MAX_FILL for value in values):
        return False
    width = len(values[0]) if len(set(map(len, values))) == 1 else 0
    numbers = [int(value) for value in values]
    if [b"%0*d" % (width, number) for number in numbers] != list(values):
        return False
    bits = max(numbers).bit_length()
    packed = 0
    for at, number in enumerate(numbers):
        packed |= number << bits * at
    put_unsigned(out.program, DIGITS)
    put_unsigned(out.program, bits)
    put_unsigned(out.program, width)
    out.raw += packed.to_bytes((bits * len(numbers) + 7) // 8, "little")
    return True


def _put_binary(out: StreamsWriter, values: Sequence[bytes]) -> bool:
    """Values of up to eight bytes as numbers, in the byte order that gives the smaller ones."""
    if not values or not 1 <= len(values[0]) <= 8 or any(len(value) != len(values[0]) for value in values):
        return False
    width = len(values[0])
    little, big = (_integers(values, order) for order in ("little", "big"))
    swapped = width > 1 and _cost(big, width) < _cost(little, width)
    put_unsigned(out.program, BINARY)
    put_unsigned(out.program, 2 * width + swapped)
    out.vectors.put(big if swapped else little)
    return True


def _integers(values: Sequence[bytes], order: str) -> Int64s:
    numbers = [int.from_bytes(value, order, signed=True) for value in values]  # type: ignore[arg-type]
    return np.array(numbers, dtype=np.int64)


def _cost(values: Int64s, width: int) -> int:
    steps = np.diff(values.astype(np.uint64)).astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
    return len(compress(steps.T.tobytes(), _TRIAL_LEVEL))
