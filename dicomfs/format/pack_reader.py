"""Reading of pixel, burned and opaque packs: the index, band payloads, opaque streams, repair by scan.

Owns which ranges are read.  Band payloads are handed out undecoded and unchecked: whoever decodes them
compares the digests of SegmentIndex before serving a byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dicomfs.errors import DamagedError, NotFoundError, UnsupportedFeature
from dicomfs.format.compression import decompress
from dicomfs.format.digest import digest64
from dicomfs.format.framing import (
    Read,
    SectionHeader,
    open_section,
    read_exactly,
    scan_sections,
)
from dicomfs.format.head import Head, index_head, load_index, pack_kind
from dicomfs.format.pack_index import (
    BandExtent,
    ChunkIndex,
    ChunkRecord,
    IndexRecord,
    SegmentDescription,
    SegmentIndex,
    StackIndex,
    StackRecord,
    StreamIndex,
    segment_index,
    stream_index,
)
from dicomfs.format.pack_notes import Decision, Packing, StandsFor, StoodFor
from dicomfs.format.version import KIB, MAX_INDEX, Section
from dicomfs.format.wire import decode_wire, read_description
from dicomfs.model import STREAM_KINDS, PackKind, PixelLayout

_MAX_HEAD = 64 * KIB
_LOST_LAYOUT = PixelLayout(0, 0, 1, 8, 8, 7, signed=False)
"""Stands for the layout of a stack of which no section is left."""


class _Contents(NamedTuple):
    head: Head
    stacks: list[StackIndex]
    streams: list[StreamIndex]
    index_digest: int | None
    packing: Packing


class PackReader:
    """Index of one pack and access to its payloads.

    ``read(offset, length)`` returns those bytes, short only at the end.  Opening reads one range, or two when
    the index is larger than 64 KiB.  Immutable after opening, thus usable from several threads when ``read``
    is.  Opening raises DamagedError, UnsupportedVersion or UnsupportedFeature.
    """

    def __init__(self, read: Read, size: int, name: str) -> None:
        self._init(read, size, name, _from_index(read, size, name))

    def _init(self, read: Read, size: int, name: str, contents: _Contents) -> None:
        self._read = read
        self.name = name
        """For messages only."""
        self.size = size
        self.kind: PackKind = pack_kind(contents.head.kind, name)
        self.archive_id = contents.head.archive_id
        self.features = contents.head.features
        self.stacks = contents.stacks
        self.streams = contents.streams
        self.index_digest = contents.index_digest
        """XXH3-64 of the plain index; None where it was put together by a scan."""
        self.packing = contents.packing
        """What was noted; of a rebuilt pack only what it stands for."""
        if self.kind is PackKind.HEADER:
            raise DamagedError(name, "a header pack where a pixel or opaque pack was expected")
        if self.stacks if self.kind in STREAM_KINDS else self.streams:
            raise DamagedError(name, "contents do not fit the kind of the pack")

    @classmethod
    def rebuild(cls, read: Read, size: int, name: str) -> PackReader:
        """Open a pack by scanning its sections, for a lost or damaged index (verify, recover).

        Reads the whole object in bounded memory.  An intact index behind a lost trailer is used as it is.
        Without one, what the sections say of themselves is put together, and lost segments and chunks leave
        gaps: ``complete`` of their stack or stream is then false, reads of the gap raise DamagedError, and a
        stack or stream of which nothing is left is empty, or missing at the end of the list.  Raises
        DamagedError when neither head nor index is left, UnsupportedVersion and UnsupportedFeature as usual.
        """
        reader = cls.__new__(cls)
        reader._init(read, size, name, _from_scan(read, size, name))
        return reader

    @property
    def complete(self) -> bool:
        """False only after ``rebuild`` of a damaged pack: some payload is lost."""
        parts: list[StackIndex | StreamIndex] = [*self.stacks, *self.streams]
        return all(part.complete for part in parts)

    def stack(self, number: int) -> StackIndex:
        """The stack of that number; NotFoundError when there is none."""
        if not 0 <= number < len(self.stacks):
            raise NotFoundError("stack", f"{self.name}#{number}")
        return self.stacks[number]

    def stream(self, number: int) -> StreamIndex:
        """The stream of that number; NotFoundError when there is none."""
        if not 0 <= number < len(self.streams):
            raise NotFoundError("stream", f"{self.name}#{number}")
        return self.streams[number]

    def read_band(self, band: BandExtent) -> bytes:
        """The encoded payload of one band, unchecked; DamagedError when the pack is shorter."""
        return self.read_bands([band])

    def read_bands(self, bands: Sequence[BandExtent]) -> bytes:
        """The encoded payloads of bands that follow one another, unchecked; DamagedError as `read_band`."""
        offset, last = bands[0].offset, bands[-1]
        return read_exactly(self._read, offset, last.offset + last.length - offset, self.name)

    def read_segment(self, segment: SegmentIndex) -> list[bytes]:
        """The encoded payloads of all bands of a segment in one range, unchecked."""
        data = read_exactly(self._read, segment.offset, segment.length, self.name)
        start = segment.offset
        return [data[band.offset - start : band.offset - start + band.length] for band in segment.bands]

    def read_stream(self, stream: int, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length`` of a stream, cut at its end as a slice would be.

        Every byte comes from a chunk whose digest was checked.  Raises DamagedError, NotFoundError.
        """
        return b"".join(self.iter_stream(stream, offset, length))

    def iter_stream(self, stream: int, offset: int, length: int) -> Iterator[bytes]:
        """As ``read_stream``, in checked pieces of at most 1 MiB."""
        index = self.stream(stream)
        position, end = max(offset, 0), min(max(offset, 0) + max(length, 0), index.length)
        while position < end:
            chunk = index.chunks[index.chunk_number(position)]
            piece = self.read_chunk(chunk)[position - chunk.offset : end - chunk.offset]
            yield piece
            position += len(piece)

    def read_chunk(self, chunk: ChunkIndex) -> bytes:
        """The plain bytes of one chunk, checked; DamagedError."""
        data = read_exactly(self._read, chunk.place, chunk.stored, self.name)
        if chunk.stored != chunk.plain:
            data = decompress(data, chunk.plain, self.name)
        if digest64(data) != chunk.digest:
            raise DamagedError(self.name, "chunk digest does not match", chunk.place)
        return data


def _from_scan(read: Read, size: int, name: str) -> _Contents:
    found = _Scan(name)
    for section in scan_sections(read, size, name):
        if section.kind == Section.INDEX:
            # Only the trailer is lost: the index knows all, also segments whose own section is damaged.
            payload = _payload(read, section, MAX_INDEX, name)
            return _from_payload(index_head(payload, name), payload, section.offset, name)
        found.take(read, section)
    return found.contents()


def _payload(read: Read, section: SectionHeader, limit: int, name: str) -> bytes:
    if section.stored > limit:
        raise DamagedError(name, "impossible section length", section.offset)
    data = read_exactly(read, section.offset, section.end - section.offset, name)
    return open_section(data, section.offset, limit, name)[1]


def _from_index(read: Read, size: int, name: str) -> _Contents:
    head, payload, limit = load_index(read, size, name)
    return _from_payload(head, payload, limit, name)


def _from_payload(head: Head, payload: bytes, limit: int, name: str) -> _Contents:
    record = decode_wire(payload, IndexRecord, name)
    if len(record.places) != len(record.segments):
        raise DamagedError(name, "segment columns differ in length")
    segments: list[list[SegmentIndex]] = [[] for _ in record.stacks]
    reached = [0] * len(record.stacks)
    for segment, place in zip(record.segments, record.places, strict=True):
        if segment.stack >= len(segments) or segment.first_frame != reached[segment.stack]:
            raise DamagedError(name, "segments do not follow each other")
        reached[segment.stack] += segment.frames
        stack = record.stacks[segment.stack]
        segments[segment.stack].append(segment_index(segment, stack, place, limit, name))
    if reached != [stack.frames for stack in record.stacks]:
        raise DamagedError(name, "segments do not cover their stack")
    decisions = record.packing.decisions or (None,) * len(record.stacks)
    if len(decisions) != len(record.stacks):
        raise DamagedError(name, "decisions on other stacks")
    stacks = [_stack(*found, name) for found in zip(record.stacks, segments, decisions, strict=True)]
    streams = [stream_index(stream, limit, name) for stream in record.streams]
    return _Contents(head, stacks, streams, digest64(payload), record.packing)


def _stack(
    record: StackRecord, segments: list[SegmentIndex], decision: Decision | None, name: str
) -> StackIndex:
    return StackIndex(record.layout.layout(name), record.frames, segments, decision)


class _Scan:
    """Collects what the sections of a pack say of themselves."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head: Head | None = None
        self.stacks: dict[int, StackRecord] = {}
        self.segments: dict[int, dict[int, SegmentIndex]] = {}
        self.stream_lengths: dict[int, int] = {}
        self.chunks: dict[int, dict[int, ChunkIndex]] = {}
        self.stands_for: tuple[StoodFor, ...] = ()

    def take(self, read: Read, section: SectionHeader) -> None:
        """Note one intact section; DamagedError when it contradicts an earlier one."""
        if section.kind == Section.HEAD:
            self.head = decode_wire(_payload(read, section, _MAX_HEAD, self.name), Head, self.name)
            self.head.check(self.name)
        elif section.kind == Section.SEGMENT:
            self._take_segment(read, section)
        elif section.kind == Section.CHUNK:
            self._take_chunk(read, section)
        elif section.kind == Section.STANDS_FOR:
            payload = _payload(read, section, _MAX_HEAD, self.name)
            self.stands_for = decode_wire(payload, StandsFor, self.name).packs
        elif not section.optional:
            raise UnsupportedFeature(self.name, [f"section kind {section.kind}"])

    def _take_segment(self, read: Read, section: SectionHeader) -> None:
        found, place, length = read_description(read, section, SegmentDescription, self.name)
        record = found.segment
        if self.stacks.setdefault(record.stack, found.stack) != found.stack:
            raise DamagedError(self.name, "sections contradict each other", section.offset)
        index = segment_index(record, found.stack, place, place + length, self.name)
        self.segments.setdefault(record.stack, {})[record.first_frame] = index

    def _take_chunk(self, read: Read, section: SectionHeader) -> None:
        record, place, length = read_description(read, section, ChunkRecord, self.name)
        known = self.stream_lengths.setdefault(record.stream, record.stream_length)
        if known != record.stream_length or length != record.stored:
            raise DamagedError(self.name, "sections contradict each other", section.offset)
        if record.offset + record.plain > known or record.stored > record.plain:
            raise DamagedError(self.name, "chunk does not fit its stream", section.offset)
        digest = int.from_bytes(record.digest, "little")
        index = ChunkIndex(record.offset, record.plain, place, record.stored, digest)
        self.chunks.setdefault(record.stream, {})[record.offset] = index

    def contents(self) -> _Contents:
        """What was found, in order; DamagedError without any head or with overlaps."""
        if self.head is None:
            raise DamagedError(self.name, "neither head nor index is left")
        stacks = [self._stack(number) for number in range(max(self.stacks, default=-1) + 1)]
        streams = [self._stream(number) for number in range(max(self.stream_lengths, default=-1) + 1)]
        return _Contents(self.head, stacks, streams, None, Packing(stands_for=self.stands_for))

    def _stack(self, number: int) -> StackIndex:
        if number not in self.stacks:
            return StackIndex(_LOST_LAYOUT, 0, [])
        segments = [segment for _, segment in sorted(self.segments[number].items())]
        for before, after in itertools.pairwise(segments):
            if before.first_frame + before.frames > after.first_frame:
                raise DamagedError(self.name, "segments overlap")
        return _stack(self.stacks[number], segments, None, self.name)

    def _stream(self, number: int) -> StreamIndex:
        chunks = [chunk for _, chunk in sorted(self.chunks.get(number, {}).items())]
        for before, after in itertools.pairwise(chunks):
            if before.offset + before.plain > after.offset:
                raise DamagedError(self.name, "chunks overlap")
        return StreamIndex(self.stream_lengths.get(number, 0), chunks)
