"""Frames out of packs: segment payloads fetched, bands decoded, every band checked before it is handed on.

Owns the way from (pack, stack, frame, band) to raw bytes: which payload to fetch, what is decoded in one go,
what to keep; when it is decoded, ``decoding`` says.  Knows nothing of files and instances.  May be called
from any thread; decoding releases the interpreter lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from dicomfs.codec.base import FROM_DISK, CodecId
from dicomfs.codec.registry import codec
from dicomfs.codec.segment import decode_frames
from dicomfs.decoded import BytesCache
from dicomfs.decoding import Decoding, Steps, Wanted
from dicomfs.errors import (
    DamagedError,
    MismatchError,
    ObjectCold,
    ObjectNotFound,
    TierError,
    TransientTierError,
    UnsupportedFeature,
)
from dicomfs.format.pack import PackReader
from dicomfs.format.pack_index import BandExtent, SegmentIndex, StackIndex
from dicomfs.model import ObjectKey
from dicomfs.packs import PackSource

_ENCODED_BYTES = 64 << 20
_READ_BYTES = 4 << 20
"""Payloads of neighbouring bands that are read in one range: an object store sends about as much in the time
that it takes to answer another request, and a segment hardly ever has more."""


_Range = tuple[ObjectKey, int, int]
"""Bytes of a pack: from where, and how many."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One band of one frame: what is decoded, checked and kept."""

    pack: ObjectKey
    stack: int
    frame: int
    band: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes ``start``..``stop`` of a unit."""

    unit: Unit
    start: int
    stop: int


class FrameReader:
    """Decodes bands of frames, each once however many ask, into a bounded cache.

    Frames of a segment that predict each other are decoded in order; a reader gets its frame when it is done
    and checked, while the rest goes on.  Bands are decoded side by side.
    """

    def __init__(self, source: PackSource, cache_bytes: int) -> None:
        self._source = source
        self._decoded: BytesCache[Unit] = BytesCache(cache_bytes)
        self._processors = len(os.sched_getaffinity(0))
        self._decoding: Decoding[Unit] = Decoding(self._decoded, self._processors)
        self._encoded: BytesCache[_Range] = BytesCache(_ENCODED_BYTES)

    def close(self) -> None:
        """Decode nothing more that nobody waits for."""
        self._decoding.close()

    def forget_payloads(self) -> None:
        """Read payloads again: those held may be of a copy that was bad."""
        self._encoded.clear()

    def stack(self, pack: ObjectKey, number: int) -> StackIndex:
        """The index of a stack.

        Raises:
            DamagedError: the pack has no such stack.
        """
        return _stack_of(self._source.pack(pack), pack, number)

    def _exactly(self, pack: ObjectKey, number: int) -> StackIndex:
        """As `stack`, of this object itself: where a unit lies is true of no stand-in."""
        return _stack_of(self._source.object(pack), pack, number)

    def slices(self, pack: ObjectKey, number: int, frame: int, start: int, stop: int) -> Iterator[Slice]:
        """The units under bytes ``start``..``stop`` of a frame, in order.

        They name the object that is read, which may stand in for the pack: bands differ between the two.
        """
        pack = ObjectKey(self._source.pack(pack).name)
        stack = self._exactly(pack, number)
        segment = segment_of(pack, stack, frame)
        row_bytes = stack.layout.row_bytes
        for index, band in enumerate(segment.bands):
            first, last = band.first_row * row_bytes, (band.first_row + band.rows) * row_bytes
            if first < stop and last > start:
                unit = Unit(pack, number, frame, index)
                yield Slice(unit, max(start, first) - first, min(stop, last) - first)

    def ready(self, unit: Unit) -> bytes | None:
        """The unit if it is decoded already; never blocks for long."""
        return self._decoded.get(unit)

    def fetch(self, unit: Unit) -> bytes:
        """The raw bytes of a unit, checked.

        Raises:
            TierError, FormatError, CodecError: it cannot be had or decoded.
            MismatchError: it decodes to other bytes than were packed.
        """
        decoded = self.ready(unit)
        if decoded is None:
            decoded = self._decoding.fetch(self._wanted(unit), self._beside(unit))
        return decoded

    def _beside(self, unit: Unit) -> Iterator[Wanted[Unit]]:
        """Who reads one band of a frame goes on to the next ones: idle processors decode them meanwhile.

        Those whose payloads were read with that of the band: no tier is asked for them.
        """
        segment = segment_of(unit.pack, self._exactly(unit.pack, unit.stack), unit.frame)
        together = _read_with(segment.bands, unit.band)
        if self._encoded.get(_key(unit.pack, segment.bands[together.start : together.stop])) is None:
            return
        for band in range(unit.band + 1, min(unit.band + self._processors, together.stop)):
            yield self._wanted(Unit(unit.pack, unit.stack, unit.frame, band))

    def _wanted(self, unit: Unit) -> Wanted[Unit]:
        stack = self._exactly(unit.pack, unit.stack)
        segment = segment_of(unit.pack, stack, unit.frame)
        inside = unit.frame - segment.first_frame
        alone = codec(codec_of(unit.pack, segment)).random_access

        def key_of(place: int) -> Unit:
            return Unit(unit.pack, unit.stack, segment.first_frame + place, unit.band)

        def make() -> tuple[int, Steps]:
            payload = self._payload(self._source.object(unit.pack), unit, segment)
            wanted = [inside] if alone else None
            return (inside if alone else 0), _steps(payload, stack, segment, unit, wanted)

        run = unit if alone else (unit.pack, unit.stack, segment.first_frame, unit.band)
        stop = inside + 1 if alone else segment.frames
        # Decoding beyond what is wanted makes sense where the cache keeps it until it is.
        finish = 2 * segment.frames * stack.layout.frame_bytes <= self._decoded.limit_bytes
        return Wanted(run, inside, stop, key_of, make, finish)

    def _payload(self, pack: PackReader, unit: Unit, segment: SegmentIndex) -> memoryview:
        band, read_with = segment.bands[unit.band], _read_with(segment.bands, unit.band)
        together = segment.bands[read_with.start : read_with.stop]
        key = _key(unit.pack, together)

        def read() -> dict[_Range, bytes]:
            return {key: pack.read_bands(together)}

        try:
            whole = self._encoded.fetch(key, key, read)
        except (TransientTierError, ObjectNotFound, ObjectCold):
            raise
        except (TierError, DamagedError):
            # What lies beside the band cannot be read; the band may be.
            return memoryview(pack.read_band(band))
        start = band.offset - together[0].offset
        return memoryview(whole)[start : start + band.length]


def _read_with(bands: Sequence[BandExtent], wanted: int) -> range:
    """The neighbouring bands that are read in one range with a band, the same ones for each of them."""
    first = 0
    for number, band in enumerate(bands):
        if number > first and band.offset + band.length - bands[first].offset > _READ_BYTES:
            if number > wanted:
                return range(first, number)
            first = number
    return range(first, len(bands))


def _key(pack: ObjectKey, together: Sequence[BandExtent]) -> _Range:
    first, last = together[0], together[-1]
    return pack, first.offset, last.offset + last.length - first.offset


def _steps(
    payload: memoryview, stack: StackIndex, segment: SegmentIndex, unit: Unit, wanted: list[int] | None
) -> Steps:
    """The frames of a band by their number in the segment; an error in place of one whose digest differs."""
    rows = segment.bands[unit.band].rows
    found = decode_frames(payload, stack.layout, rows, segment.frames, codec_of(unit.pack, segment), wanted)
    for frame, raw in found:
        if xxhash.xxh3_64_intdigest(raw) == int(segment.digests[frame, unit.band]):
            yield frame, raw
        else:
            where = f"stack {unit.stack} frame {segment.first_frame + frame} band {unit.band}"
            yield frame, MismatchError(f"{unit.pack} {where}")


def _stack_of(reader: PackReader, pack: ObjectKey, number: int) -> StackIndex:
    if number >= len(reader.stacks):
        raise DamagedError(pack, f"has no stack {number}, which an instance table refers to")
    return reader.stacks[number]


def codec_of(pack: ObjectKey, segment: SegmentIndex) -> CodecId:
    """The codec of a segment.

    Raises:
        UnsupportedFeature: its number is not known here.
    """
    found = FROM_DISK.get(segment.codec)
    if found is None:
        raise UnsupportedFeature(pack, [f"codec {segment.codec}"])
    return found


def segment_of(pack: ObjectKey, stack: StackIndex, frame: int) -> SegmentIndex:
    """The segment a frame lies in.

    Raises:
        DamagedError: the stack has no such frame.
    """
    if not 0 <= frame < stack.frames:
        raise DamagedError(pack, f"has no frame {frame}, which an instance table refers to")
    return stack.segments[stack.segment_number(frame)]
