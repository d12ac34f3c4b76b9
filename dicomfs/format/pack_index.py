"""What a pixel, burned or opaque pack holds and where: the values of its index and their stored form.

Owns validation: whatever comes out of here is consistent in itself and lies inside the pack.  Does not read
band payloads or chunks.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError, NotFoundError
from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.head import Head
from dicomfs.format.pack_notes import Decision, Packing
from dicomfs.format.version import MAX_CHUNK, MAX_FRAME_BYTES, MAX_FRAMES, MAX_LENGTH, MAX_STACKS, MAX_STREAMS
from dicomfs.model import PixelLayout

Digests = npt.NDArray[np.uint64]

_Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAMES)]
_StackNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_STACKS)]
_StreamNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_STREAMS)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_FRAMES)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]
_Extent = Annotated[int, msgspec.Meta(ge=1, le=(1 << 32) - 1)]
_Hint = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Parameter = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_SIGNED, _BIG_ENDIAN, _FLOAT = 1, 2, 4


class LayoutRecord(msgspec.Struct, frozen=True, array_like=True):
    """Stored form of model.PixelLayout."""

    rows: _Extent
    columns: _Extent
    samples: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]
    bits_allocated: Annotated[int, msgspec.Meta(ge=8, le=64)]
    bits_stored: _Hint
    high_bit: _Hint
    flags: Annotated[int, msgspec.Meta(ge=0, le=_SIGNED | _BIG_ENDIAN | _FLOAT)]

    @classmethod
    def of(cls, layout: PixelLayout) -> LayoutRecord:
        """The record of a layout."""
        flags = _SIGNED * layout.signed | _BIG_ENDIAN * layout.big_endian | _FLOAT * layout.is_float
        return cls(
            layout.rows,
            layout.columns,
            layout.samples,
            layout.bits_allocated,
            layout.bits_stored,
            layout.high_bit,
            flags,
        )

    def layout(self, artefact: str) -> PixelLayout:
        """The layout; DamagedError when impossible."""
        layout = PixelLayout(
            self.rows,
            self.columns,
            self.samples,
            self.bits_allocated,
            self.bits_stored,
            self.high_bit,
            bool(self.flags & _SIGNED),
            bool(self.flags & _BIG_ENDIAN),
            bool(self.flags & _FLOAT),
        )
        if self.bits_allocated not in (8, 16, 32, 64) or layout.frame_bytes > MAX_FRAME_BYTES:
            raise DamagedError(artefact, "impossible pixel layout")
        return layout


class StackRecord(msgspec.Struct, frozen=True, array_like=True):
    """One stack: layout and number of frames."""

    layout: LayoutRecord
    frames: _Count


class SegmentRecord(msgspec.Struct, frozen=True, array_like=True):
    """One segment of a stack, without its place in the pack."""

    stack: _StackNumber
    first_frame: _Index
    frames: _Count
    codec: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    params: _Parameter
    band_rows: Annotated[tuple[_Extent, ...], msgspec.Meta(min_length=1)]
    """Rows of each band, from the top; they sum up to the rows of the layout."""
    band_lengths: Annotated[tuple[_Offset, ...], msgspec.Meta(min_length=1)]
    """Stored bytes of each band; band payloads follow each other without gaps."""
    digests: bytes
    """frames x bands XXH3-64 values, u64 little-endian, frame by frame."""


class SegmentDescription(msgspec.Struct, frozen=True, array_like=True):
    """What stands in front of the band payloads in a SEGMENT section: enough to rebuild the index."""

    segment: SegmentRecord
    stack: StackRecord


class ChunkRecord(msgspec.Struct, frozen=True, array_like=True):
    """One chunk of a stream, without its place in the pack; the description in its CHUNK section."""

    stream: _StreamNumber
    stream_length: _Offset
    offset: _Offset
    plain: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)]
    stored: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)]
    """Equal to ``plain`` when the chunk is stored as it is, else bytes of one zstd frame."""
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class StreamRecord(msgspec.Struct, frozen=True, array_like=True):
    """One stream with its chunks, column by column, in order of their offsets in the stream."""

    length: _Offset
    plain: tuple[Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)], ...]
    stored: tuple[Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)], ...]
    places: tuple[_Offset, ...]
    """Offset of each chunk's stored bytes in the pack."""
    digests: bytes


class PlainIndexRecord(msgspec.Struct, frozen=True, array_like=True):
    """Payload of the INDEX section of a pixel, burned or opaque pack of which nothing was noted."""

    head: Head
    sections: _Index
    """Number of sections before the index."""
    stacks: Annotated[tuple[StackRecord, ...], msgspec.Meta(max_length=MAX_STACKS)]
    segments: tuple[SegmentRecord, ...]
    """In order of stack and first frame."""
    places: tuple[_Offset, ...]
    """Offset of the first band payload of each segment."""
    streams: Annotated[tuple[StreamRecord, ...], msgspec.Meta(max_length=MAX_STREAMS)]


class IndexRecord(PlainIndexRecord, frozen=True, array_like=True):
    """The same with what the writer noted."""

    packing: Packing = Packing()


@dataclass(frozen=True, slots=True)
class BandExtent:
    """Rows ``first_row`` to ``first_row + rows`` of all frames of a segment: payload at ``offset``."""

    first_row: int
    rows: int
    offset: int
    """Bytes from the start of the pack."""
    length: int


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """One segment: frames ``first_frame`` to ``first_frame + frames`` of its stack."""

    first_frame: int
    frames: int
    codec: int
    """On-disk codec id (docs/format.md, codec ids)."""
    params: int
    """What the encoder noted (effort, profile); not needed to decode."""
    bands: tuple[BandExtent, ...]
    digests: Digests
    """Shape (frames, bands): XXH3-64 of the original bytes of the rows of each band of each frame."""

    @property
    def offset(self) -> int:
        """Offset of the first band payload; payloads are contiguous."""
        return self.bands[0].offset

    @property
    def length(self) -> int:
        """Bytes of all band payloads."""
        return sum(band.length for band in self.bands)


@dataclass(frozen=True, slots=True)
class StackIndex:
    """One stack and its segments in order of frames."""

    layout: PixelLayout
    frames: int
    segments: list[SegmentIndex]
    decision: Decision | None = None
    """Why it is coded as it is, where that was noted."""
    _starts: list[int] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._starts.extend(segment.first_frame for segment in self.segments)

    def segment_number(self, frame: int) -> int:
        """Number of the segment that holds ``frame``.

        NotFoundError outside the stack; DamagedError for a frame that was lost (after ``rebuild`` only).
        """
        if not 0 <= frame < self.frames:
            raise NotFoundError("frame", str(frame))
        number = bisect_right(self._starts, frame) - 1
        if number >= 0 and frame < self.segments[number].first_frame + self.segments[number].frames:
            return number
        raise DamagedError("stack", f"the segment of frame {frame} is lost")

    @property
    def complete(self) -> bool:
        """Whether every frame has a segment; only false after ``rebuild`` of a damaged pack."""
        return sum(segment.frames for segment in self.segments) == self.frames


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """One chunk of a stream: ``plain`` bytes of it from ``offset``."""

    offset: int
    plain: int
    place: int
    """Offset of the stored bytes in the pack."""
    stored: int
    digest: int


@dataclass(frozen=True, slots=True)
class StreamIndex:
    """One opaque stream and its chunks in order."""

    length: int
    chunks: list[ChunkIndex]
    _starts: list[int] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._starts.extend(chunk.offset for chunk in self.chunks)

    def chunk_number(self, offset: int) -> int:
        """Number of the chunk that holds byte ``offset``; DamagedError when lost (after ``rebuild``)."""
        number = bisect_right(self._starts, offset) - 1
        if number >= 0 and offset < self.chunks[number].offset + self.chunks[number].plain:
            return number
        raise DamagedError("stream", f"the chunk at byte {offset} of the stream is lost")

    @property
    def complete(self) -> bool:
        """Whether every byte has a chunk; only false after ``rebuild`` of a damaged pack."""
        return sum(chunk.plain for chunk in self.chunks) == self.length


def segment_index(
    record: SegmentRecord, stack: StackRecord, place: int, limit: int, artefact: str
) -> SegmentIndex:
    """The checked segment whose payloads start at ``place`` and end before ``limit``; else DamagedError."""
    bands, lengths = len(record.band_rows), record.band_lengths
    if len(lengths) != bands or sum(record.band_rows) != stack.layout.rows:
        raise DamagedError(artefact, "bands do not cover the rows", place)
    if record.first_frame + record.frames > stack.frames:
        raise DamagedError(artefact, "segment reaches beyond its stack", place)
    if len(record.digests) != record.frames * bands * DIGEST_BYTES:
        raise DamagedError(artefact, "wrong number of digests", place)
    if place + sum(lengths) > limit:
        raise DamagedError(artefact, "segment reaches beyond the pack", place)
    rows = [0, *accumulate(record.band_rows)]
    places = list(accumulate(lengths, initial=place))
    extents = tuple(
        BandExtent(rows[band], record.band_rows[band], places[band], lengths[band]) for band in range(bands)
    )
    digests = np.frombuffer(record.digests, "<u8").astype(np.uint64).reshape(record.frames, bands)
    digests.flags.writeable = False
    return SegmentIndex(record.first_frame, record.frames, record.codec, record.params, extents, digests)


def stream_index(record: StreamRecord, limit: int, artefact: str) -> StreamIndex:
    """The checked stream; DamagedError when its chunks do not tile it or lie outside the pack."""
    count = len(record.plain)
    if not count == len(record.stored) == len(record.places) == len(record.digests) // DIGEST_BYTES:
        raise DamagedError(artefact, "chunk columns differ in length")
    if sum(record.plain) != record.length or len(record.digests) % DIGEST_BYTES:
        raise DamagedError(artefact, "chunks do not cover the stream")
    if any(place + stored > limit for place, stored in zip(record.places, record.stored, strict=True)):
        raise DamagedError(artefact, "chunk reaches beyond the pack")
    if any(stored > plain for plain, stored in zip(record.plain, record.stored, strict=True)):
        raise DamagedError(artefact, "chunk larger than its plain bytes")
    offsets = accumulate(record.plain, initial=0)
    digests = np.frombuffer(record.digests, "<u8").tolist()
    columns = zip(offsets, record.plain, record.places, record.stored, digests, strict=False)
    return StreamIndex(record.length, [ChunkIndex(*row) for row in columns])
