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

_ONE_CHUNK_DIGITS = 18  # below 2**63
_CHUNK_DIGITS = 12  # 39.9 bits in 5 bytes: of all lengths the one that wastes least
_TAIL_LIMIT = 64  # UIDs have at most 64 characters (PS3.5 9.1)


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
    lengths: IntColumn | None
    """Digits of each tail; None: each is one number without leading zeros."""
    chunks: list[IntColumn]
    """The tails as numbers, right-aligned; cut every twelve digits when longer than eighteen."""
    texts: list[bytes]
    """The tails where they are not numbers; then there are no chunks."""


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
    cut = least[:shared].rfind(b".") + 1
    tails = [uid[cut:] for uid in raw]
    if not all(tail.isdigit() and len(tail) <= _TAIL_LIMIT for tail in tails):
        return UidColumn(least[:shared], None, [], [uid[shared:] for uid in raw])
    if all(len(tail) <= _ONE_CHUNK_DIGITS and (tail[:1] != b"0" or tail == b"0") for tail in tails):
        return UidColumn(least[:cut], None, _chunks(tails, 1), [])
    if len({len(tail) for tail in tails}) == 1 and shared < len(least):
        cut, tails = shared, [uid[shared:] for uid in raw]
    lengths = np.array([len(tail) for tail in tails], dtype=np.int64)
    longest = int(lengths.max())
    count = 1 if longest <= _ONE_CHUNK_DIGITS else -(-longest // _CHUNK_DIGITS)
    return UidColumn(least[:cut], encode_ints(lengths), _chunks(tails, count), [])


def _chunks(tails: list[bytes], count: int) -> list[IntColumn]:
    width = _CHUNK_DIGITS if count > 1 else _ONE_CHUNK_DIGITS
    padded = [tail.rjust(count * width, b"0") for tail in tails]
    return [
        encode_ints(np.array([int(text[at : at + width]) for text in padded], dtype=np.int64))
        for at in range(0, count * width, width)
    ]


@dataclass(frozen=True, slots=True)
class Uids:
    """A decoded column that builds each UID on demand: most lookups want one of a thousand."""

    prefix: str
    lengths: Ints | None
    chunks: list[Ints]
    texts: list[str]

    @classmethod
    def decode(cls, column: UidColumn, count: int) -> Uids:
        """Checks and unfolds a column.  Raises ValueError where it does not hold ``count`` UIDs."""
        lengths = None if column.lengths is None else decode_ints(column.lengths, count)
        chunks = [decode_ints(chunk, count) for chunk in column.chunks]
        impossible = len(column.texts) != (0 if chunks else count) or (len(chunks) > 1 and lengths is None)
        if impossible or (lengths is not None and not 1 <= lengths.min() <= lengths.max() <= _TAIL_LIMIT):
            msg = "impossible UID column"
            raise ValueError(msg)
        if not chunks:
            # The cut may fall inside a UTF-8 sequence of an odd UID: join before decoding.
            texts = [(column.prefix + tail).decode("utf-8", "surrogatepass") for tail in column.texts]
            return cls("", None, [], texts)
        return cls(column.prefix.decode("utf-8", "surrogatepass"), lengths, chunks, [])

    def __getitem__(self, row: int) -> str:
        if self.texts:
            return self.texts[row]
        if self.lengths is None:
            return f"{self.prefix}{int(self.chunks[0][row])}"
        length = int(self.lengths[row])
        digits = "".join(f"{int(chunk[row]):0{_CHUNK_DIGITS}d}" for chunk in self.chunks)
        return self.prefix + digits.zfill(length)[-length:]

    def all(self) -> list[str]:
        """Every UID, in the order of the rows."""
        prefix = self.prefix
        if self.texts:
            return self.texts
        if self.lengths is None:
            return [f"{prefix}{number}" for number in self.chunks[0].tolist()]
        parts = [[f"{number:0{_CHUNK_DIGITS}d}" for number in chunk.tolist()] for chunk in self.chunks]
        digits = parts[0] if len(parts) == 1 else map("".join, zip(*parts, strict=True))
        return [
            prefix + text.zfill(length)[-length:]
            for text, length in zip(digits, self.lengths.tolist(), strict=True)
        ]
