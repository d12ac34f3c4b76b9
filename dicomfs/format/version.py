"""Every constant of the on-disk format (docs/format.md).

Owns magics, versions, section kinds, limits and feature names.  The numbers here are written to disk: they
are never reused or renumbered.  Enumerations used in code map to them elsewhere.
"""

from __future__ import annotations

import enum
from typing import Final

MAJOR: Final = 1
"""A reader refuses objects of a higher major version."""
MINOR: Final = 1
"""A reader accepts any minor version of a known major: minors only add what may be ignored."""
FEATURE_COLUMNS: Final = "columns"
"""Header blocks are blocks of columns, and SOP Instance UIDs may lie in header bytes."""
KNOWN_FEATURES: Final[frozenset[str]] = frozenset({FEATURE_COLUMNS, "codestreams", "texts"})
"""Feature names that this version can read; an unknown name in an object refuses it."""

SECTION_MAGIC: Final = b"\xd1CMFS\r\n\x1a"
"""Starts every section.  Not ASCII, CR LF and ^Z: a transfer that mangles text is seen at once."""
TRAILER_MAGIC: Final = b"\xd1CMEND\n\x1a"
"""Last eight bytes of every pack."""

KIB: Final = 1 << 10
MIB: Final = 1 << 20


class Section(enum.IntEnum):
    """Section kinds as stored."""

    HEAD = 1
    SEGMENT = 2
    CHUNK = 3
    HEADER_BLOCK = 4
    SERIES_PART = 5
    JOURNAL = 6
    INDEX = 7
    STANDS_FOR = 8
    SERIES_PARTS = 9
    SNAPSHOT = 16
    JOURNAL_COPIES = 17
    HEADER_FACTS = 18
    STAND_INS = 19


JOURNAL_OBJECT: Final = 16
"""Object kind of a journal object in its head; packs use the values of model.PackKind (1 to 5)."""
SNAPSHOT_OBJECT: Final = 17
"""Object kind of a snapshot in its head."""

FLAG_OPTIONAL: Final = 0x01
"""Section flag: a reader that does not know the section's kind skips it instead of refusing the object."""

COMPRESSION_NONE: Final = 0
COMPRESSION_ZSTD: Final = 1

ARCHIVE_ID_BYTES: Final = 16
TAIL_READ: Final = 64 * KIB
"""How much a reader takes from the end of a pack in its first range."""

MAX_CHUNK: Final = 1 * MIB
"""Plain bytes of one chunk of an opaque stream, and of the dictionary of a header block."""
MAX_BLOCK: Final = 4 * MIB
"""Plain bytes of one header block of version 1.0, and of the header bytes of one instance."""
MAX_COLUMN_BLOCK: Final = 32 * MIB
"""Plain bytes of one block of columns."""
MAX_STREAM: Final = 16 * MIB
"""Plain bytes of one stream of a block of columns."""
MAX_BLOCK_ROWS: Final = 1 << 12
"""Rows of one block of columns."""
MAX_INDEX: Final = 64 * MIB
"""Plain bytes of an index, a series part or a journal section."""
MAX_DESCRIPTION: Final = 16 * MIB
"""Bytes of the description in front of a segment or chunk (nearly all of it digests)."""
MAX_FEATURES: Final = 64
MAX_FRAMES: Final = 1 << 31
"""Frames of one stack."""
MAX_FRAME_BYTES: Final = 1 << 40
MAX_LENGTH: Final = 1 << 48
"""Bytes of a file or stream: far above anything real, low enough that sums stay inside 64 bits."""
MAX_STACKS: Final = 1 << 16
"""Stacks of one pack."""
MAX_STANDS_FOR: Final = 1 << 10
"""Packs in whose place one pack is read."""
MAX_STREAMS: Final = 1 << 20
"""Streams of one pack."""
MAX_PART_ROWS: Final = 1 << 17
"""Instances of one series part; a longer series is written as several parts."""
MAX_PART_PIECES: Final = 1 << 21
"""Pieces of all instances of one series part."""
