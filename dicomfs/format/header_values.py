"""Values that stand at one place in many headers, split into what they share and columns of what differs.

Owns how texts and binary values are taken apart; the result is a sequence of operations of a template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dicomfs.format.templates import Open

_DIGITS = re.compile(rb"([0-9]+)")
_NUMBERS = re.compile(rb"(-?[0-9]+\.[0-9]+|[0-9]+)")
_NUMBER = re.compile(rb" *-?[0-9]+(?:\.[0-9]+)?")
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){4,}")
_DATE_TIME = re.compile(rb"[0-9]{14}(?:\.[0-9]+)?")
_TEXT = bytes(range(0x20, 0x7F)) + b"\r\n\t"
_MAX_PARTS = 64
_MAX_PLACES = 256
"""Bytes of a binary value that may differ for it to be split at them."""
_GAP = 3
_WIDE = 256
_SHORT, _LONG = 9, 18
"""Digits: shorter numbers are columns as they are; of those between, some end with a counter."""
_COUNTER = 5
_COUNTER_RANGE = 100_000


@dataclass(frozen=True, slots=True)
class Column:
    """A hole, and what fills it in each execution of the template."""

    values: tuple[bytes, ...]


Part = bytes | Open | None | Column
"""Literal bytes, brackets (None closes), or a hole."""


def split_values(values: Sequence[bytes], unit: int) -> list[Part]:
    """Operations that make ``values``; ``unit`` is the size of the numbers in binary ones."""
    if _same(values):
        return [values[0]]
    width = len(values[0])
    even = all(len(value) == width for value in values)
    if unit > 1 and even and width % unit == 0:
        return _units(values, unit) if width <= 8 * unit else _places(values)
    if not any(value.rstrip(b"\0").strip(_TEXT) for value in values):
        return _padded(values, even=even)
    return _places(values) if even else [Column(tuple(values))]


def _same(values: Sequence[bytes]) -> bool:
    return all(value == values[0] for value in values)


def _units(values: Sequence[bytes], unit: int) -> list[Part]:
    parts: list[Part] = []
    for at in range(0, len(values[0]), unit):
        column = tuple(value[at : at + unit] for value in values)
        parts.append(column[0] if _same(column) else Column(column))
    return parts


def _places(values: Sequence[bytes]) -> list[Part]:
    """Binary values of one length, split at the bytes that differ, if these are few."""
    width = len(values[0])
    whole = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), width)
    different = np.flatnonzero((whole != whole[0]).any(axis=0))
    if width <= 8 or len(different) > _MAX_PLACES:
        return [Column(tuple(values))]
    parts: list[Part] = []
    at = 0
    for run in np.split(different, np.flatnonzero(np.diff(different) > _GAP) + 1):
        first, last = int(run[0]), int(run[-1]) + 1
        parts.append(values[0][at:first])
        parts.append(Column(tuple(value[first:last] for value in values)))
        at = last
    parts.append(values[0][at:])
    return parts


def _padded(values: Sequence[bytes], *, even: bool) -> list[Part]:
    """Texts: padding to even length follows from the rest, and so does padding to a width."""
    for pad in (b" ", b"\0"):
        bare = [value[:-1] if value.endswith(pad) else value for value in values]
        if all(len(a) % 2 == len(b) - len(a) for a, b in zip(bare, values, strict=True)) and bare != values:
            return [Open(0, pad[0], 2), *_text(bare), None]
    width = len(values[0])
    bare = [value.rstrip(b"\0") for value in values]
    if even and 2 < width <= _WIDE and all(bare) and bare != values:
        return [Open(0, 0, width), *_text(bare), None]
    if (
        bare != values
        and not even
        and all(len(b) == -(-len(a) // 4) * 4 for a, b in zip(bare, values, strict=True))
    ):
        return [Open(0, 0, 4), *_text(bare), None]
    return _text(values)


def _text(values: Sequence[bytes]) -> list[Part]:
    if _same(values):
        return [values[0]]
    if all(map(_DATE_TIME.fullmatch, values)):
        return _joined([[value[:8], value[8:]] for value in values], b"")
    if all(map(_NUMBER.fullmatch, values)):
        return _digits(values) if all(value.isdigit() for value in values) else [Column(tuple(values))]
    count = values[0].count(b"\\")
    if count and all(value.count(b"\\") == count for value in values):
        return _joined([value.split(b"\\") for value in values], b"\\")
    uids = all(map(_UID.fullmatch, values))
    for pattern in (_DIGITS,) if uids else (_NUMBERS, _DIGITS):
        parts = [pattern.split(value) for value in values]
        count = len(parts[0])
        if 1 < count <= _MAX_PARTS and all(len(part) == count for part in parts):
            return _joined(parts, b"")
    return _ends(values)


def _joined(rows: list[list[bytes]], between: bytes) -> list[Part]:
    parts: list[Part] = []
    for number, column in enumerate(zip(*rows, strict=True)):
        if number:
            parts.append(between)
        if all(map(_NUMBER.fullmatch, column)) or (between and not _same(column)):
            parts += _text(column)
        else:
            parts.append(column[0] if _same(column) else Column(column))
    return parts


def _digits(values: Sequence[bytes]) -> list[Part]:
    """Numbers without a point: long ones without what all begin with, and without their counting end."""
    if max(map(len, values)) <= _SHORT:
        return [Column(tuple(values))]
    start = _shared(values)
    while start and any(value[start : start + 1] in {b"0", b""} for value in values):
        start -= 1
    rests = [value[start:] for value in values]
    if not _SHORT < max(map(len, rests)) <= _LONG or min(map(len, rests)) <= _COUNTER:
        return [values[0][:start], Column(tuple(rests))]
    ends = [rest[-_COUNTER:] for rest in rests]
    if len(set(ends)) < len(values) // 2 or not _counts(ends):
        return [values[0][:start], Column(tuple(rests))]
    return [values[0][:start], Column(tuple(rest[:-_COUNTER] for rest in rests)), Column(tuple(ends))]


def _counts(ends: Sequence[bytes]) -> bool:
    """Whether numbers of a few digits are not spread evenly over their range, as random ones are."""
    numbers = [int(end) for end in ends]
    return 4 * (max(numbers) - min(numbers)) < _COUNTER_RANGE


def _shared(values: Sequence[bytes]) -> int:
    """Length of what all begin with."""
    least, most = min(values), max(values)
    return next((at for at, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))


def _ends(values: Sequence[bytes]) -> list[Part]:
    """What all begin and end with as literals."""
    start = _shared(values)
    room = min(map(len, values)) - start
    end = 0
    while end < room and all(value[-1 - end] == values[0][-1 - end] for value in values):
        end += 1
    column = tuple(value[start : len(value) - end] for value in values)
    return [values[0][:start], Column(column), values[0][len(values[0]) - end :]]
