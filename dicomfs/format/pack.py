"""Writing of pixel, burned and opaque packs (docs/format.md, pack).

Owns the order of sections while a pack grows.  Encodes nothing: band payloads come from the codecs.  The
index is last, so that a pack is written in one pass; every segment and chunk describes itself, so that a
lost index costs a scan and no data (dicomfs.format.pack_reader).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np

from dicomfs.errors import FormatError
from dicomfs.format.compression import compress_if_smaller
from dicomfs.format.digest import DIGEST_BYTES, digest64
from dicomfs.format.framing import SectionWriter
from dicomfs.format.head import new_head, write_head, write_index
from dicomfs.format.keys import pack_key
from dicomfs.format.pack_index import (
    ChunkRecord,
    Digests,
    IndexRecord,
    LayoutRecord,
    PlainIndexRecord,
    SegmentDescription,
    SegmentRecord,
    StackRecord,
    StreamRecord,
    segment_index,
)
from dicomfs.format.pack_notes import Decision, Packing, StandsFor, StoodFor, profile_number
from dicomfs.format.pack_reader import PackReader
from dicomfs.format.version import MAX_CHUNK, MAX_LENGTH, MAX_STACKS, MAX_STREAMS, Section
from dicomfs.format.wire import decode_wire, describe, encode_wire
from dicomfs.model import STREAM_KINDS, ObjectKey, PackKind, PixelLayout

__all__ = ["PackReader", "PackSummary", "PackWriter"]

_WRITING = "pack being written"
_Record = TypeVar("_Record", StackRecord, SegmentRecord, Decision, StandsFor)
CHUNK_LEVEL = 12
"""zstd level of chunks: above it, 1 MiB inputs cost twice the time for about one percent."""


@dataclass(frozen=True, slots=True)
class PackSummary:
    """A finished pack: what a tier needs to store it."""

    sha256: str
    """Of all bytes, 64 lower-case hex digits."""
    size: int
    kind: PackKind
    index_digest: int
    """XXH3-64 of the plain index."""

    @property
    def key(self) -> ObjectKey:
        """Name of the object on a tier."""
        return pack_key(self.kind, self.sha256)


class _Stream:
    """Columns of a stream while it is written."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.written = 0
        self.plain: list[int] = []
        self.stored: list[int] = []
        self.places: list[int] = []
        self.digests = bytearray()

    def record(self) -> StreamRecord:
        return StreamRecord(
            self.length, tuple(self.plain), tuple(self.stored), tuple(self.places), bytes(self.digests)
        )


class PackWriter:
    """Appends stacks (pixel, burned) or streams (opaque, text) to ``file``, which must be empty.

    ``profile`` and ``stands_for`` are noted for those who come later: how the frames were coded, and in the
    place of which packs this one is read, oldest first.

    Not thread-safe.  Misuse and inconsistent input raise FormatError and leave the writer as it was; an
    OSError of ``file`` makes it unusable.  Durability (fsync) is the caller's.
    """

    def __init__(
        self,
        file: BinaryIO,
        kind: PackKind,
        archive_id: bytes,
        features: Sequence[str] = (),
        *,
        profile: str = "",
        stands_for: Sequence[StoodFor] = (),
    ) -> None:
        if kind is PackKind.HEADER:
            raise FormatError(_WRITING, "header packs have their own writer")
        self._kind = kind
        self._head = new_head(kind, archive_id, tuple(features))
        self._writer = SectionWriter(file)
        self._stacks: list[StackRecord] = []
        self._segments: list[tuple[SegmentRecord, int]] = []
        self._streams: list[_Stream] = []
        self._decisions: list[Decision | None] = []
        self._profile, self._stands_for = profile_number(profile), tuple(stands_for)
        self._summary: PackSummary | None = None
        write_head(self._writer, self._head)
        if stands_for:
            claim = _validated(StandsFor(self._stands_for))
            self._writer.add(Section.STANDS_FOR, (encode_wire(claim),), optional=True)

    @property
    def size(self) -> int:
        """Bytes written so far; the index is not among them before ``finish``."""
        return self._writer.size

    @property
    def key(self) -> ObjectKey:
        """Object key of the finished pack; FormatError before ``finish``."""
        if self._summary is None:
            raise FormatError(_WRITING, "it has no key before it is finished")
        return self._summary.key

    def add_stack(self, layout: PixelLayout, frames: int, decision: Decision | None = None) -> int:
        """Declare a stack of ``frames`` frames; returns its number in the pack, from 0."""
        if self._kind in STREAM_KINDS:
            raise FormatError(_WRITING, "opaque and text packs hold no stacks")
        if len(self._stacks) == MAX_STACKS:
            raise FormatError(_WRITING, "too many stacks")
        record = StackRecord(LayoutRecord.of(layout), frames)
        self._stacks.append(_validated(record))
        self._stacks[-1].layout.layout(_WRITING)
        self._decisions.append(None if decision is None else _validated(decision))
        return len(self._stacks) - 1

    def add_segment(
        self,
        stack: int,
        first_frame: int,
        frames: int,
        codec: int,
        params: int,
        bands: Sequence[tuple[int, int, bytes]],
        digests: Digests,
    ) -> None:
        """Append one encoded segment; segments may come in any order.

        ``bands``: (first row, rows, payload) from the top, covering all rows.  ``digests``: uint64, shape
        (frames, bands).  ``params`` (below 2**32) is kept for information.
        """
        if not 0 <= stack < len(self._stacks):
            raise FormatError(_WRITING, f"no stack {stack}")
        expected = 0
        for first_row, rows, _ in bands:
            if first_row != expected:
                raise FormatError(_WRITING, f"band starts at row {first_row} instead of {expected}")
            expected += rows
        if digests.shape != (frames, len(bands)):
            raise FormatError(_WRITING, f"digests of shape {digests.shape} for {frames} x {len(bands)} bands")
        payloads = tuple(payload for _, _, payload in bands)
        record = _validated(
            SegmentRecord(
                stack,
                first_frame,
                frames,
                codec,
                params,
                tuple(rows for _, rows, _ in bands),
                tuple(len(payload) for payload in payloads),
                np.ascontiguousarray(digests, "<u8").tobytes(),
            )
        )
        segment_index(record, self._stacks[stack], 0, MAX_LENGTH, _WRITING)
        description = describe(SegmentDescription(record, self._stacks[stack]))
        payload_offset = self._writer.add(Section.SEGMENT, (description, *payloads))
        self._segments.append((record, payload_offset + len(description)))

    def add_stream(self, length: int) -> int:
        """Declare an opaque stream of ``length`` bytes; returns its number in the pack, from 0."""
        if self._kind not in STREAM_KINDS:
            raise FormatError(_WRITING, "only opaque and text packs hold streams")
        if len(self._streams) == MAX_STREAMS:
            raise FormatError(_WRITING, "too many streams")
        if not 0 <= length <= MAX_LENGTH:
            raise FormatError(_WRITING, f"stream of {length} bytes")
        self._streams.append(_Stream(length))
        return len(self._streams) - 1

    def add_chunk(self, stream: int, offset: int, plain: bytes, level: int = CHUNK_LEVEL) -> None:
        """Append the next 1 to 1,048,576 bytes of a stream; ``offset`` must be where the last chunk ended.

        Streams may be interleaved.  Stored as zstd of ``level`` when that is smaller, else as it is.
        """
        if not 0 <= stream < len(self._streams):
            raise FormatError(_WRITING, f"no stream {stream}")
        target = self._streams[stream]
        if not 1 <= len(plain) <= MAX_CHUNK:
            raise FormatError(_WRITING, f"chunk of {len(plain)} bytes")
        if offset != target.written or offset + len(plain) > target.length:
            raise FormatError(_WRITING, f"chunk at byte {offset} instead of {target.written}")
        stored = compress_if_smaller(plain, level) or plain
        digest = digest64(plain).to_bytes(DIGEST_BYTES, "little")
        description = describe(ChunkRecord(stream, target.length, offset, len(plain), len(stored), digest))
        place = self._writer.add(Section.CHUNK, (description, stored)) + len(description)
        target.written += len(plain)
        target.plain.append(len(plain))
        target.stored.append(len(stored))
        target.places.append(place)
        target.digests += digest

    def finish(self) -> PackSummary:
        """Check that nothing is missing, write index and trailer; the pack is complete.

        Raises FormatError when frames of a stack or bytes of a stream are missing or doubled.
        """
        segments = sorted(self._segments, key=lambda item: (item[0].stack, item[0].first_frame))
        self._check_complete([record for record, _ in segments])
        index = PlainIndexRecord(
            self._head,
            self._writer.sections,
            tuple(self._stacks),
            tuple(record for record, _ in segments),
            tuple(place for _, place in segments),
            tuple(stream.record() for stream in self._streams),
        )
        if self._profile or self._stands_for or any(self._decisions):
            decisions = tuple(self._decisions) if any(self._decisions) else ()
            packing = Packing(self._profile, decisions, self._stands_for)
            index = IndexRecord(**msgspec.structs.asdict(index), packing=packing)
        digest = write_index(self._writer, self._head, index)
        self._summary = PackSummary(self._writer.sha256, self._writer.size, self._kind, digest)
        return self._summary

    def _check_complete(self, segments: list[SegmentRecord]) -> None:
        reached = [0] * len(self._stacks)
        for record in segments:
            if record.first_frame != reached[record.stack]:
                raise FormatError(_WRITING, f"stack {record.stack}: frames missing or doubled")
            reached[record.stack] += record.frames
        for number, stack in enumerate(self._stacks):
            if reached[number] != stack.frames:
                raise FormatError(_WRITING, f"stack {number}: {reached[number]} of {stack.frames} frames")
        for number, stream in enumerate(self._streams):
            if stream.written != stream.length:
                raise FormatError(_WRITING, f"stream {number}: {stream.written} of {stream.length} bytes")


def _validated(record: _Record) -> _Record:
    """The record as a reader will see it: its declared bounds hold."""
    return decode_wire(encode_wire(record), type(record), _WRITING)
