"""Frames out of packs: segment payloads fetched, bands decoded, every band checked before it is handed on.

Owns the way from (pack, stack, frame, band) to raw bytes: which payload to fetch, what to decode at once,
what to keep.  Knows nothing of files and instances.  May be called from any thread; decoding releases the
interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from dicomfs.codec.base import FROM_DISK, CodecId
from dicomfs.codec.registry import codec
from dicomfs.codec.segment import decode_band
from dicomfs.decoded import BytesCache
from dicomfs.errors import DamagedError, MismatchError, UnsupportedFeature
from dicomfs.format.pack import PackReader
from dicomfs.format.pack_index import SegmentIndex, StackIndex
from dicomfs.model import ObjectKey
from dicomfs.packs import PackSource

_ENCODED_BYTES = 64 << 20


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
    """Decodes bands of frames, single-flight, into a bounded cache."""

    def __init__(self, source: PackSource, cache_bytes: int) -> None:
        self._source = source
        self._decoded: BytesCache[Unit] = BytesCache(cache_bytes)
        self._encoded: BytesCache[tuple[ObjectKey, int]] = BytesCache(_ENCODED_BYTES)

    def stack(self, pack: ObjectKey, number: int) -> StackIndex:
        """The index of a stack.

        Raises:
            DamagedError: the pack has no such stack.
        """
        reader = self._source.pack(pack)
        if number >= len(reader.stacks):
            raise DamagedError(pack, f"has no stack {number}, which an instance table refers to")
        return reader.stacks[number]

    def slices(self, pack: ObjectKey, number: int, frame: int, start: int, stop: int) -> Iterator[Slice]:
        """The units under bytes ``start``..``stop`` of a frame, in order."""
        stack = self.stack(pack, number)
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
        stack = self.stack(unit.pack, unit.stack)
        segment = segment_of(unit.pack, stack, unit.frame)
        alone = codec(codec_of(unit.pack, segment)).random_access
        flight = unit if alone else (unit.pack, unit.stack, segment.first_frame, unit.band)
        return self._decoded.fetch(unit, flight, lambda: self._decode(unit, stack, segment, alone))

    def _decode(self, unit: Unit, stack: StackIndex, segment: SegmentIndex, alone: bool) -> dict[Unit, bytes]:
        band = segment.bands[unit.band]
        payload = self._payload(self._source.pack(unit.pack), unit, segment)
        inside = unit.frame - segment.first_frame
        wanted = [inside] if alone else None
        decoded = decode_band(
            payload, stack.layout, band.rows, segment.frames, codec_of(unit.pack, segment), wanted
        )
        for frame, raw in decoded.items():
            if xxhash.xxh3_64_intdigest(raw) != int(segment.digests[frame, unit.band]):
                raise MismatchError(
                    f"{unit.pack} stack {unit.stack} frame {segment.first_frame + frame} band {unit.band}"
                )
        return {
            Unit(unit.pack, unit.stack, segment.first_frame + frame, unit.band): raw
            for frame, raw in decoded.items()
        }

    def _payload(self, pack: PackReader, unit: Unit, segment: SegmentIndex) -> bytes:
        band = segment.bands[unit.band]
        key = (unit.pack, band.offset)

        def read() -> dict[tuple[ObjectKey, int], bytes]:
            return {key: pack.read_band(band)}

        return self._encoded.fetch(key, key, read)


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
