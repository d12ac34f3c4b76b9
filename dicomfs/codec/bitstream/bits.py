"""Codes of different lengths written one after the other, a whole scan at once.

Owns the packing of bits into bytes.  Vectorised: writing a frame costs a few passes over its samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_Unsigned = npt.NDArray[np.unsignedinteger[Any]]


def pack_bits(codes: _Unsigned, lengths: _Unsigned) -> bytes:
    """Join ``codes``, of 1 to 32 bits each, highest bit first; the last byte is filled with ones."""
    if not len(codes):
        return b""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1])
    starts = ends - lengths
    words = starts >> 5
    shifts = (64 - (starts & 31) - lengths).astype(np.uint64)
    placed = codes.astype(np.uint64) << shifts
    # No code is longer than a word: in every word up to the last one at least one code begins.
    first = np.flatnonzero(np.diff(words, prepend=-1))
    out = np.zeros(len(first) + 1, np.uint64)
    out[:-1] = np.add.reduceat(placed >> np.uint64(32), first)
    out[1:] += np.add.reduceat(placed & np.uint64(0xFFFFFFFF), first)
    data = bytearray(out.astype(">u4").tobytes()[: (total + 7) // 8])
    data[-1] |= (1 << (-total % 8)) - 1
    return bytes(data)


def stuff_zeros(data: bytes) -> bytes:
    """Put a zero byte behind each byte of ones (ITU-T T.81 F.1.2.3)."""
    return data.replace(b"\xff", b"\xff\x00")
