"""Columns of integers and texts, decoded from `docs/format.md` alone; see `independent_reader`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.independent_codecs import Refused
from tests.independent_objects import fields


def integers(value: Any, count: int) -> list[int]:
    """A column of ``count`` integers."""
    form, first, step, width, data = fields(value, 5)
    if form == 0:
        return [first] * count
    if form == 1:
        return _signed(np.uint64(first & _MASK) + np.arange(count, dtype=np.uint64) * np.uint64(step & _MASK))
    zigzags = count if form == 2 else max(count - 1, 0)
    if form not in {2, 3} or width not in {1, 2, 4, 8} or len(data) != zigzags * width:
        raise Refused("a column of integers")
    planes = np.frombuffer(data, np.uint8).reshape(width, zigzags)
    numbers = np.ascontiguousarray(planes.T).view(f"<u{width}").ravel().astype(np.uint64)
    plain = (numbers >> np.uint64(1)) ^ (~(numbers & np.uint64(1)) + np.uint64(1))
    if form == 2:
        return _signed(plain)
    sums = np.cumsum(np.concatenate([np.array([first & _MASK], np.uint64), plain]), dtype=np.uint64)
    return _signed(sums)[:count]


_MASK = (1 << 64) - 1


def _signed(values: npt.NDArray[np.uint64]) -> list[int]:
    return [int(one) for one in values.view(np.int64)]


def texts(value: Any, count: int) -> list[str]:
    """A column of ``count`` texts."""
    shared, rest, data = fields(value, 3)
    found: list[bytes] = []
    at = 0
    for common, more in zip(integers(shared, count), integers(rest, count), strict=True):
        before = found[-1] if found else b""
        if not 0 <= common <= len(before) or not 0 <= more <= len(data) - at or common + more > 1024:
            raise Refused("a column of texts")
        found.append(before[:common] + data[at : at + more])
        at += more
    return [one.decode("utf-8") for one in found]
