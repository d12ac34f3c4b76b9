"""A frame in 64 bits, as a pack's index knows it: made from the digests of its bands.

How frames are cut into bands depends on the codec: a frame that is looked up has a fingerprint for each cut.
Two frames with one fingerprint are compared before they count as equal.  A frame that is one value
throughout has none: storing it again costs less than looking it up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from dicomfs.codec.base import CodecId
from dicomfs.codec.segment import band_rows
from dicomfs.format.pack_index import StackIndex
from dicomfs.model import PixelLayout

LEAST_BYTES = 4096
"""Smaller frames are not worth a reference."""
LARGEST_BYTES = 1 << 28
"""Larger frames are not held in memory to be looked up."""
_LOOK = 64


def fingerprints(raw: bytes, layout: PixelLayout) -> tuple[int, ...]:
    """The fingerprints of a frame, one for each way in which codecs cut it into bands; () without any."""
    if len(raw) < LEAST_BYTES or _uniform(np.frombuffer(raw, np.uint8)):
        return ()
    heights = sorted({band_rows(layout, 1, codec) for codec in CodecId}, reverse=True)
    return tuple(_of_bands(raw, height * layout.row_bytes) for height in heights)


def _of_bands(raw: bytes, size: int) -> int:
    digests = [xxhash.xxh3_64_intdigest(raw[at : at + size]) for at in range(0, len(raw), size)]
    return _folded(np.array(digests, np.uint64))


def stack_fingerprints(stack: StackIndex) -> npt.NDArray[np.uint64]:
    """Fingerprints of all frames of a stack, from the pack's index: uniform frames have one here."""
    out = np.zeros(stack.frames, np.uint64)
    for segment in stack.segments:
        rows = segment.digests
        folded = rows[:, 0] if rows.shape[1] == 1 else [_folded(row) for row in rows]
        out[segment.first_frame : segment.first_frame + segment.frames] = folded
    return out


def _folded(digests: npt.NDArray[np.uint64]) -> int:
    if len(digests) == 1:
        return int(digests[0])
    return xxhash.xxh3_64_intdigest(digests.astype("<u8").tobytes())


def _uniform(raw: npt.NDArray[Any]) -> bool:
    """Whether all words of eight bytes are the same, and what is left over begins like them."""
    words = raw[: len(raw) // 8 * 8].view("<u8")
    if not (words[:_LOOK] == words[0]).all():
        return False
    return bool((words == words[0]).all()) and bytes(raw[len(words) * 8 :]) == bytes(raw[: len(raw) % 8])
