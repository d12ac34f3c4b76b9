"""Shared texts: header bytes that several header packs have in common, in objects of their own.

Owns what such an object holds and how texts are cut into pieces.  A block of columns may have its text
compressed against one; then the text holds no piece that is not in that block.  So whoever needs a shared
text has all of it in files of his own, and what an instance that is forgotten had alone is never in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from dicomfs.errors import DamagedError
from dicomfs.format.version import MAX_CHUNK
from dicomfs.model import ObjectKey

FEATURE: Final = "texts"
"""Name of the feature that a header pack with such blocks needs."""
MAX_TEXT: Final = MAX_CHUNK
"""Bytes of a shared text: one chunk, read at once."""
_WINDOW = 8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT, _CUT = np.uint64(58), np.uint64(1)
_LEAST, _MOST = 32, 1024


class TextRef(NamedTuple):
    """Names a shared text."""

    key: ObjectKey
    index_digest: int
    """Digest of the plain index of its pack."""


@dataclass(frozen=True, slots=True)
class SharedText:
    """A shared text and its name."""

    ref: TextRef
    data: bytes


ReadText = Callable[[TextRef], bytes]
"""Gives the bytes of a shared text, checked; DamagedError, TierError."""


def no_text(ref: TextRef) -> bytes:
    """For readers of packs that stand alone."""
    raise DamagedError(ref.key, "a header block needs this shared text, and it is not at hand")


def pieces(text: bytes) -> list[bytes]:
    """Pieces of a text, cut where its bytes say so, without what is left behind the last cut.

    Equal stretches are cut alike wherever they stand, and pieces put one after the other are cut into the
    same pieces again.
    """
    if len(text) < _LEAST:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), _WINDOW)
    hashes = np.ascontiguousarray(windows).view("<u8").ravel() * _FACTOR
    ends = (np.flatnonzero(hashes >> _SHIFT == _CUT) + _WINDOW).tolist()
    found: list[bytes] = []
    start = 0
    for end in [*ends, len(text) + _MOST]:
        while min(end, len(text) + 1) - start > _MOST:
            found.append(text[start : start + _MOST])
            start += _MOST
        if end <= len(text) and end - start >= _LEAST:
            found.append(text[start:end])
            start = end
    return found


def is_part_of(shared: bytes, text: bytes) -> bool:
    """Whether every piece of a shared text is in a text."""
    there = set(pieces(text))
    return all(piece in there or piece in text for piece in set(pieces(shared)))
