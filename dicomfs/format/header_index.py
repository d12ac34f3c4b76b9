"""Stored form of the index of a header pack and of the descriptions of its blocks."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.head import Head
from dicomfs.format.nodes import SeriesNumber
from dicomfs.format.version import MAX_BLOCK_ROWS, MAX_CHUNK, MAX_COLUMN_BLOCK, MAX_LENGTH, MAX_PART_ROWS

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 58)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Plain = Annotated[int, msgspec.Meta(ge=0, le=MAX_COLUMN_BLOCK)]
_Rows = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCK_ROWS)]
_Stored = Annotated[int, msgspec.Meta(ge=0, le=2 * MAX_COLUMN_BLOCK)]


class DictionaryPlace(msgspec.Struct, frozen=True, array_like=True):
    """Plain bytes of an earlier block that has no dictionary itself."""

    block: _Count
    offset: _Plain
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNK)]


class BlockDescription(msgspec.Struct, frozen=True, array_like=True):
    """What stands in front of the payload in a HEADER_BLOCK section."""

    number: _Count
    """Number of the block in the pack, from 0."""
    plain: _Plain
    digest: _Digest
    """XXH3-64 of the plain bytes, little-endian."""
    dictionary: DictionaryPlace | None
    """Of blocks that are one zstd frame."""
    rows: _Rows = 0
    """Rows of a block of columns; 0: one zstd frame (the only form before 1.1)."""
    base: _Count | None = None
    """Block of columns whose templates this one uses; None: its own."""


class BlockRecord(msgspec.Struct, frozen=True, array_like=True):
    """One block in the index."""

    place: _Offset
    """Offset of the payload in the pack."""
    stored: _Stored
    plain: _Plain
    digest: _Digest
    dictionary: DictionaryPlace | None
    rows: _Rows = 0
    base: _Count | None = None


class PartSummaryRecord(msgspec.Struct, frozen=True, array_like=True):
    """One series part in the index."""

    patient: _Number
    study: _Number
    series: SeriesNumber
    part: _Count
    rows: Annotated[int, msgspec.Meta(ge=0, le=MAX_PART_ROWS)]
    place: _Offset
    """Offset of the SERIES_PART section in the pack."""
    length: _Offset
    """Bytes of the whole section."""


class HeaderIndexRecord(msgspec.Struct, frozen=True, array_like=True):
    """Payload of the INDEX section of a header pack."""

    head: Head
    sections: _Count
    """Number of sections before the index."""
    blocks: tuple[BlockRecord, ...]
    parts: tuple[PartSummaryRecord, ...]
