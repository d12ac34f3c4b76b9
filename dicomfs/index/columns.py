"""Columns of a part: integers and UIDs as short as their regularity allows.

Each column is a plain msgpack value; the part's blob is compressed as a whole (parts.py), so a column
only has to *expose* its regularity: differences, common factors, byte planes, common prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
_Words: TypeAlias = npt.NDArray[np.uint64]

_TAIL_DIGITS = 18  # below 2**63


class IntColumn(msgspec.Struct, array_like=True, frozen=True):
    """``values[i] = low + scale * plane[i]``, then summed up ``sums`` times from the seeds, modulo 2**64."""

    sums: int
    seeds: list[int]
    low: int
    scale: int
    width: int
    planes: bytes
    """``width`` byte planes of the residues, lowest first."""


class UidColumn(msgspec.Struct, array_like=True, frozen=True):
    """UIDs as a common prefix and tails: numbers where all are, else bytes."""

    prefix: bytes
    digits: int
    """Width that numbers are padded to with zeros; 0: not padded; -1: ``texts`` are used."""
    numbers: IntColumn | None
    texts: list[bytes]


def encode_ints(values: Ints) -> IntColumn:
    """Picks the cheapest of plain values, differences, and differences of differences."""
    words = values.astype(np.int64, copy=False).view(np.uint64)
    best: IntColumn | None = None
    seeds: list[int] = []
    for sums in range(3):
        if sums:
            seeds = [*seeds, int(words[0])]
            words = np.diff(words)
        column = _residues(words, sums, seeds)
        # Deeper differences must pay: on noise they only add entropy.
        if best is None or column.width < best.width:
            best = column
        if best.width == 0 or len(words) < 2:
            break
    assert best is not None
    return best


def decode_ints(column: IntColumn, count: int) -> Ints:
    """The ``count`` values.  Raises ValueError where the column cannot hold them."""
    width, residues = column.width, count - column.sums
    if (
        not 0 <= width <= 8
        or residues < 0
        or len(column.planes) != width * residues
        or len(column.seeds) != column.sums
    ):
        msg = "impossible column"
        raise ValueError(msg)
    table = np.zeros((residues, 8), dtype=np.uint8)
    if width:
        table[:, :width] = np.frombuffer(column.planes, dtype=np.uint8).reshape(width, residues).T
    words = table.view(np.uint64).reshape(residues)
    words = words * np.uint64(column.scale) + np.uint64(column.low)
    for seed in reversed(column.seeds):
        words = np.cumsum(np.concatenate((np.array([seed], dtype=np.uint64), words)), dtype=np.uint64)
    return words.view(np.int64)


def _residues(words: _Words, sums: int, seeds: list[int]) -> IntColumn:
    signed = words.view(np.int64)
    if not len(words):
        return IntColumn(sums, seeds, 0, 1, 0, b"")
    low = signed.min().view(np.uint64)
    residues = words - low
    scale = int(np.gcd.reduce(residues)) or 1
    residues //= np.uint64(scale)
    width = (int(residues.max()).bit_length() + 7) // 8
    planes = residues.view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()
    return IntColumn(sums, seeds, int(low), scale, width, planes)


def encode_uids(uids: Sequence[str]) -> UidColumn:
    """Shares the common prefix and stores numeric tails as numbers."""
    raw = [uid.encode("utf-8", "surrogatepass") for uid in uids]
    least, greatest = min(raw), max(raw)
    shared = next((at for at, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), len(least))
    prefix = least[:shared]
    # First try whole components (no leading zeros then), next digits of equal width.
    for cut, padded in ((prefix.rfind(b".") + 1, False), (len(prefix), True)):
        tails = [uid[cut:] for uid in raw]
        digits = len(tails[0]) if padded else 0
        if all(_is_number(tail, digits) for tail in tails):
            numbers = np.array([int(tail) for tail in tails], dtype=np.int64)
            return UidColumn(prefix[:cut], digits, encode_ints(numbers), [])
    return UidColumn(prefix, -1, None, [uid[len(prefix) :] for uid in raw])


def _is_number(tail: bytes, digits: int) -> bool:
    if not tail.isdigit() or len(tail) > _TAIL_DIGITS:
        return False
    return len(tail) == digits if digits else tail[:1] != b"0" or tail == b"0"


@dataclass(frozen=True, slots=True)
class Uids:
    """A decoded column that builds each UID on demand: most lookups want one of a thousand."""

    prefix: str
    digits: int
    numbers: Ints | None
    texts: list[bytes]

    @classmethod
    def decode(cls, column: UidColumn, count: int) -> Uids:
        """Checks and unfolds a column.  Raises ValueError where it does not hold ``count`` UIDs."""
        numbers = None if column.numbers is None else decode_ints(column.numbers, count)
        if (numbers is None) != (column.digits < 0) or (numbers is None and len(column.texts) != count):
            msg = "impossible UID column"
            raise ValueError(msg)
        prefix = column.prefix
        if numbers is None:
            # The cut may fall inside a UTF-8 sequence of an odd UID: join before decoding.
            return cls("", -1, None, [prefix + tail for tail in column.texts])
        return cls(prefix.decode("utf-8", "surrogatepass"), column.digits, numbers, [])

    def __getitem__(self, row: int) -> str:
        if self.numbers is None:
            return self.texts[row].decode("utf-8", "surrogatepass")
        return f"{self.prefix}{int(self.numbers[row]):0{self.digits}d}"

    def all(self) -> list[str]:
        """Every UID, in the order of the rows."""
        if self.numbers is None:
            return [text.decode("utf-8", "surrogatepass") for text in self.texts]
        prefix, digits = self.prefix, self.digits
        if digits:
            return [f"{prefix}{number:0{digits}d}" for number in self.numbers.tolist()]
        return [f"{prefix}{number}" for number in self.numbers.tolist()]
