"""Run-length coding of DICOM (PS3.5 annex G): PackBits over byte planes.

How bytes are cut into runs and literals is the encoder's choice.  The recipe names one of eight usual
policies for each segment and lists where the codestream departs from it, so any encoder can be followed; one
that departs often is not worth it and has no reading.

Recipe: flag 1 where the header is as the standard has it (offsets of segments that follow each other); parts
are the header (empty with flag 1), then for each segment its departures and the bytes behind its last run.
Departures: a byte of policy, then for each (LEB128 each) runs to take from the policy, runs to skip there,
runs that follow here, and a control byte for each of those.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import put_varint
from dicomfs.codec.bitstream.base import Reading, put_parts, take_parts, take_varint
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

_NAME = "rle"
_HEADER = 64
_MAX_SEGMENTS = 15
_LONGEST = 128
_STANDARD_HEADER = 1
_MAX_TAIL = 64
_WORTH = 8
"""A recipe larger than the codestream's length divided by this is not worth it."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """A cut of bytes: run k has ``lengths[k]`` bytes, all equal where ``equal[k]``, else a literal."""

    lengths: Ints
    equal: npt.NDArray[np.bool_]

    @property
    def starts(self) -> Ints:
        """Where each run begins."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def controls(self) -> Bytes:
        """The control byte of each run."""
        return np.where(self.equal, 257 - self.lengths, self.lengths - 1).astype(np.uint8)


class Rle:
    """Frames of 1 to 4 samples of 8, 16 or 32 bits; one segment for each byte of a pixel."""

    def read(self, data: bytes, hint: PixelLayout) -> Reading:
        """See `FrameBitstream.read`; size and depth are those of the hint."""
        layout = PixelLayout(
            hint.rows, hint.columns, hint.samples, hint.bits_allocated, hint.bits_stored, hint.high_bit,
            hint.signed,
        )  # fmt: skip
        count = layout.samples * (layout.bits_allocated // 8)
        offsets = _offsets(data, count)
        planes, parts = [], []
        for start, end in zip(offsets, [*offsets[1:], len(data)], strict=True):
            segment = data[start:end]
            runs, used = _parse(segment, layout.rows * layout.columns)
            plane = _expand(segment[:used], runs)
            planes.append(plane)
            parts += [_departures(plane, layout.columns, runs), segment[used:]]
            if len(segment) - used > _MAX_TAIL:
                raise CodecError(_NAME, "too many bytes behind a segment")
        standard = data[:_HEADER] == _header(offsets) and offsets[0] == _HEADER
        header = b"" if standard else data[: offsets[0]]
        recipe = put_parts(_STANDARD_HEADER if standard else 0, [header, *parts])
        if len(recipe) > len(data) // _WORTH + 128:
            raise CodecError(_NAME, "cut by unusual rules")
        return Reading(layout, _join(planes, layout), recipe)

    def write(self, raw: bytes, layout: PixelLayout, recipe: bytes) -> bytes:
        """See `FrameBitstream.write`."""
        count = layout.samples * (layout.bits_allocated // 8)
        flags, parts = take_parts(_NAME, recipe, 1 + 2 * _MAX_SEGMENTS)
        if flags > _STANDARD_HEADER or len(parts) != 1 + 2 * count:
            raise CodecError(_NAME, "the recipe is damaged")
        segments = []
        for plane, (departures, tail) in zip(
            _split(raw, layout), zip(parts[1::2], parts[2::2], strict=True), strict=True
        ):
            segments.append(_write(plane, _apply(plane, layout.columns, departures)) + tail)
        header = parts[0]
        if flags:
            sizes = [_HEADER, *map(len, segments)]
            header = _header([int(at) for at in np.cumsum(sizes)[:-1]])
        return b"".join([header, *segments])


def _offsets(data: bytes, count: int) -> list[int]:
    if len(data) < _HEADER or not 1 <= count <= _MAX_SEGMENTS:
        raise CodecError(_NAME, "no header")
    found, *offsets = struct.unpack_from("<16L", data)
    offsets = offsets[:count]
    if found != count or offsets[0] < _HEADER or offsets[0] > 2 * _HEADER:
        raise CodecError(_NAME, "another number of segments than bytes in a pixel")
    if any(a >= b for a, b in zip(offsets, [*offsets[1:], len(data)], strict=True)):
        raise CodecError(_NAME, "segments out of order")
    return offsets


def _header(offsets: list[int]) -> bytes:
    return struct.pack("<16L", len(offsets), *offsets, *[0] * (_MAX_SEGMENTS - len(offsets)))


def _parse(segment: bytes, wanted: int) -> tuple[Runs, int]:
    """The runs of a segment until ``wanted`` bytes are made, and where the next one would begin."""
    controls = bytearray()
    position = made = 0
    while made < wanted:
        if position >= len(segment):
            raise CodecError(_NAME, "a segment is cut off")
        control = segment[position]
        if control < _LONGEST:
            made += control + 1
            position += control + 2
        elif control > _LONGEST:
            made += 257 - control
            position += 2
        else:
            raise CodecError(_NAME, "an empty run")
        controls.append(control)
    if made != wanted or position > len(segment):
        raise CodecError(_NAME, "a run beyond the frame")
    return _from_controls(np.frombuffer(bytes(controls), np.uint8)), position


def _from_controls(controls: Bytes) -> Runs:
    wide = controls.astype(np.int64)
    equal = wide > _LONGEST
    return Runs(np.where(equal, 257 - wide, wide + 1), equal)


def _sizes(runs: Runs) -> tuple[Ints, Ints]:
    """Stored bytes of each run and where it begins in the segment."""
    sizes = np.where(runs.equal, 2, runs.lengths + 1)
    return sizes, np.cumsum(sizes) - sizes


def _within(starts: Ints, lengths: Ints) -> Ints:
    """The indexes start, start + 1 … of each run, one run after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)


def _expand(segment: bytes, runs: Runs) -> Bytes:
    stored = np.frombuffer(segment, np.uint8)
    _, places = _sizes(runs)
    out = np.repeat(stored[places + 1], runs.lengths)
    literal = ~runs.equal
    out[_within(runs.starts[literal], runs.lengths[literal])] = stored[
        _within(places[literal] + 1, runs.lengths[literal])
    ]
    return out


def _write(plane: Bytes, runs: Runs) -> bytes:
    sizes, places = _sizes(runs)
    out = np.empty(int(sizes.sum()), np.uint8)
    out[places] = runs.controls
    out[places[runs.equal] + 1] = plane[runs.starts[runs.equal]]
    literal = ~runs.equal
    out[_within(places[literal] + 1, runs.lengths[literal])] = plane[
        _within(runs.starts[literal], runs.lengths[literal])
    ]
    return out.tobytes()


def policy_runs(plane: Bytes, width: int, policy: int) -> Runs:
    """The cut that a policy makes.

    Bit 2 set: runs go on over the ends of rows.  Bits 0 and 1: pairs of equal bytes are 0 literals, 1 runs,
    2 literals behind a literal, 3 literals between literals.

    Three and more equal bytes are a run, of at most 128; what is left of a longer one is looked at as if it
    stood alone.  Literals that follow each other in a row are joined, up to 128 bytes.
    """
    edge = np.ones(len(plane), np.bool_)
    edge[1:] = plane[1:] != plane[:-1]
    row = np.zeros(len(plane), np.bool_)
    row[0] = True
    if not policy & 4:
        row[::width] = True
    starts = np.flatnonzero(edge | row)
    starts, lengths = _cut(starts, np.diff(starts, append=len(plane)))
    at_row = row[starts]
    equal = lengths >= 3
    pairs = lengths == 2
    if policy & 3 == 1:
        equal |= pairs
    elif policy & 3 > 1:
        # Pairs that follow each other in a row all stand behind the same: a literal, a run or its start.
        known = ~pairs | at_row
        latest = np.maximum.accumulate(np.where(known, np.arange(len(starts)), 0))
        behind_literal = ~equal[latest] & ~pairs[latest]
        literal = behind_literal
        if policy & 3 == 3:
            following = np.append((lengths[1:] == 1) & ~at_row[1:], False)
            literal = behind_literal & following
        equal |= pairs & ~literal
    first = equal | at_row
    first[1:] |= equal[:-1]
    heads = np.flatnonzero(first)
    totals = np.add.reduceat(lengths, heads)
    kinds = equal[heads]
    at, sizes = _cut(starts[heads], totals)
    source = np.searchsorted(starts[heads], at, side="right") - 1
    return Runs(sizes, kinds[source])


def _cut(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Cut what is longer than 128 bytes."""
    if not len(lengths) or int(lengths.max()) <= _LONGEST:
        return starts, lengths
    parts = -(-lengths // _LONGEST)
    order = _within(np.zeros(len(parts), np.int64), parts)
    out = np.repeat(starts, parts) + order * _LONGEST
    return out, np.minimum(_LONGEST, np.repeat(starts + lengths, parts) - out)


def _departures(plane: Bytes, width: int, runs: Runs) -> bytes:
    """The policy that is followed most closely, and where it is not."""
    return min((_compare(policy, policy_runs(plane, width, policy), runs) for policy in range(8)), key=len)


def _compare(policy: int, usual: Runs, found: Runs) -> bytes:
    def names(runs: Runs) -> Ints:
        return runs.starts * 512 + runs.lengths * 2 + runs.equal

    ours, theirs = names(usual), names(found)
    _, kept, taken = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    controls = found.controls
    out = [bytes([policy])]
    kept = np.concatenate(([-1], kept, [len(ours)]))
    taken = np.concatenate(([-1], taken, [len(theirs)]))
    skipped, added = np.diff(kept) - 1, np.diff(taken) - 1
    last = -1
    for at in np.flatnonzero((skipped > 0) | (added > 0)).tolist():
        # Runs at last + 1 … at of the list of common ones come first.
        out += [put_varint(at - last - 1 if last >= 0 else at), put_varint(int(skipped[at]))]
        out += [put_varint(int(added[at])), controls[taken[at] + 1 : taken[at + 1]].tobytes()]
        last = at - 1
    return b"".join(out)


def _apply(plane: Bytes, width: int, departures: bytes) -> Runs:
    if not departures or departures[0] > 7:
        raise CodecError(_NAME, "unknown policy")
    usual = policy_runs(plane, width, departures[0])
    if len(departures) == 1:
        return usual
    controls, source = usual.controls, 0
    parts: list[Bytes] = []
    position = 1
    while position < len(departures):
        keep, position = take_varint(_NAME, departures, position)
        skip, position = take_varint(_NAME, departures, position)
        add, position = take_varint(_NAME, departures, position)
        if source + keep + skip > len(controls) or position + add > len(departures):
            raise CodecError(_NAME, "departures beyond the segment")
        parts.append(controls[source : source + keep])
        parts.append(np.frombuffer(departures[position : position + add], np.uint8))
        source += keep + skip
        position += add
    runs = _from_controls(np.concatenate([*parts, controls[source:]]))
    if int(runs.lengths.sum()) != len(plane) or (runs.controls == _LONGEST).any():
        raise CodecError(_NAME, "runs that do not make up the plane")
    return runs


def _split(raw: bytes, layout: PixelLayout) -> list[Bytes]:
    """Byte planes in the order of segments: samples, each from its most significant byte on."""
    size = layout.bits_allocated // 8
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, layout.samples, size)
    return [
        np.ascontiguousarray(pixels[:, sample, byte])
        for sample in range(layout.samples)
        for byte in reversed(range(size))
    ]


def _join(planes: list[Bytes], layout: PixelLayout) -> bytes:
    size = layout.bits_allocated // 8
    pixels = np.empty((layout.rows * layout.columns, layout.samples, size), np.uint8)
    for number, plane in enumerate(planes):
        pixels[:, number // size, size - 1 - number % size] = plane
    return pixels.tobytes()
