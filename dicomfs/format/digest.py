"""The fast digest of stored and original bytes: XXH3-64, the only use of xxhash.

Detects damage, not malice: objects are named by SHA-256, files carry SHA-256 too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable

    Buffer = bytes | bytearray | memoryview

DIGEST_BYTES = 8


def digest64(data: Buffer) -> int:
    """XXH3-64 (seed 0) of ``data``; stored as 8 bytes, little-endian.

    For pixel data: of the original raw bytes of the rows of one band of one frame.
    """
    return xxhash.xxh3_64_intdigest(data)


def section_check(offset: int, parts: Iterable[Buffer]) -> int:
    """XXH3-64 of the concatenation of ``parts``, seeded with the section's ``offset`` in its object.

    The seed keeps a section from being taken for one of this object when it is not at its own place: a pack
    inside an opaque stream of a pack holds valid sections, all at foreign offsets.
    """
    state = xxhash.xxh3_64(seed=offset)
    for part in parts:
        state.update(part)
    return state.intdigest()
