"""Taking encapsulated pixel values apart: which codestreams become frames, which may be transcoded.

Owns the runs of such a file.  Decides by trying: a codestream counts as read only when its recipe and samples
gave back every byte.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from dicomfs.codec.base import CodecId, Settings
from dicomfs.codec.bitstream.base import Method, Reading
from dicomfs.codec.bitstream.registry import method_of, piece_recipe, read_checked, read_frame
from dicomfs.codec.bitstream.transcode import may_transcode
from dicomfs.codec.segment import encode_band
from dicomfs.dicom.part10 import Buffer, Scan
from dicomfs.dicom.pixels import (
    MAX_HEADER,
    START_OF_IMAGE,
    Run,
    RunKind,
    SplitPlan,
    codestream_groups,
    codestream_hint,
    is_run_length,
)
from dicomfs.errors import CodecError
from dicomfs.format.coded_pieces import MAX_CODED
from dicomfs.model import PixelLayout
from dicomfs.packing.fingerprint import fingerprints
from dicomfs.packing.spooled import SpooledRanges

MAX_CODESTREAMS = 1 << 15
"""Codestreams of one file that are taken apart; bounds its pieces."""
_MAX_RECIPES = 1 << 20
_TINY = 1024
"""Shorter codestreams on average are not worth what a piece costs."""
_ITEM_HEADER = 8
_SLABS, _SLAB_ROWS, _SHARE = 4, 16, 8

Group = tuple[tuple[int, int], ...]
"""Offset and length of the fragments of a codestream."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """A codestream of a spooled file, as it was read when the batch was planned."""

    fragments: Group
    method: Method
    recipe: bytes
    """Of a run of kind CODED: recipe of its piece."""
    inserts: tuple[tuple[int, bytes], ...]
    """Item headers inside, each behind so many bytes of the codestream."""
    digest: int
    """XXH3-64 of the run."""
    fingerprints: tuple[int, ...] = ()
    """Of the frame that it holds."""

    @property
    def run(self) -> Run:
        """The bytes of the file from its first to its last one."""
        start, (last, length) = self.fragments[0][0], self.fragments[-1]
        kind = RunKind.CODED if self.method.from_frame else RunKind.TRANSCODED
        return Run(kind, start, last + length - start)


def take_apart(
    data: Buffer, found: Scan, parts: SplitPlan, most: int = MAX_CODESTREAMS
) -> tuple[SplitPlan, dict[int, Codestream]]:
    """The plan of a file with an encapsulated pixel value, and its codestreams by the offset of their run.

    ``parts`` as it is where nothing can be gained.  Costs decoding and encoding of what is read: ``most``
    codestreams in the middle, the others are left as they are.
    """
    groups = codestream_groups(data, found)
    size = sum(length for group in groups for _, length in group)
    if not groups or len(groups) > MAX_CODESTREAMS or size < _TINY * len(groups):
        return parts, {}
    streams: list[Codestream] = []
    layout: PixelLayout | None = None
    recipes = 0
    for group in _middle(groups, most):
        read = _read(data, found, group, layout)
        if read is None:
            continue
        stream, layout = read
        recipes += len(stream.recipe)
        if recipes > _MAX_RECIPES:
            return parts, {}
        streams.append(stream)
    runs = _runs([stream.run for stream in streams], parts, groups)
    if not streams or runs is None:
        return parts, {}
    coded = sum(stream.method.from_frame for stream in streams)
    return (
        SplitPlan("coded", "", runs, layout if coded else None, coded),
        {stream.run.offset: stream for stream in streams},
    )


def untried_bytes(data: Buffer, found: Scan, most: int) -> int:
    """Bytes of the codestreams that `take_apart` leaves alone for being more than ``most``."""
    groups = codestream_groups(data, found)
    tried = _middle(groups, most)
    return sum(length for group in groups for _, length in group) - sum(
        length for group in tried for _, length in group
    )


def _middle(groups: list[Group], most: int) -> list[Group]:
    first = max(0, len(groups) - most) // 2
    return groups[first : first + most]


def _read(
    data: Buffer, found: Scan, group: Group, layout: PixelLayout | None
) -> tuple[Codestream, PixelLayout | None] | None:
    """A codestream and the layout of frames so far; None where it has no reading of that layout."""
    start, end = group[0][0], group[-1][0] + group[-1][1]
    inserts = tuple(_inserts(data, group))
    if end - start > MAX_CODED or len(inserts) != len(group) - 1:
        return None
    if not is_run_length(found) and bytes(data[start : start + 2]) != START_OF_IMAGE:
        return None  # nothing that is read; video is not even copied
    bytes_of = _joined(data, group)
    digest = xxhash.xxh3_64_intdigest(bytes(data[start:end]))
    hint = codestream_hint(found)
    try:
        method = method_of(bytes_of, hint, run_length=is_run_length(found))
        reading = read_checked(method, bytes_of, hint)
    except CodecError:
        if is_run_length(found) or not may_transcode(bytes_of):
            return None
        return Codestream(group, Method.JPEG_TRANSCODED, b"", inserts, digest), layout
    if layout not in {None, reading.layout} or not _pays(reading, len(bytes_of)):
        return None
    recipe = piece_recipe(reading.recipe, inserts)
    frame = fingerprints(reading.raw, reading.layout)
    return Codestream(group, method, recipe, inserts, digest, frame), reading.layout


def _pays(reading: Reading, length: int) -> bool:
    """Whether the frame is likely to take less than its codestream, judged by some of its rows.

    Samples that were scrambled, for instance, may have codes that no predictor comes near.
    """
    layout = reading.layout
    frame = np.frombuffer(reading.raw, np.uint8).reshape(layout.rows, layout.row_bytes)
    height = max(_SLAB_ROWS, layout.rows // (_SLABS * _SHARE))
    starts = np.linspace(0, max(0, layout.rows - height), _SLABS).astype(int)
    shown = (
        frame
        if height * _SLABS >= layout.rows
        else np.concatenate([frame[at : at + height] for at in starts])
    )
    least = shown.size
    for codec in (CodecId.FAST, CodecId.ZSTD):
        with contextlib.suppress(CodecError):
            coded = encode_band(shown.reshape(1, -1), layout, len(shown), codec, Settings(1))
            least = min(least, len(coded))
    return least * layout.rows <= length * len(shown)


def _joined(data: Buffer, group: Group) -> bytes:
    return b"".join(bytes(data[offset : offset + length]) for offset, length in group)


def _inserts(data: Buffer, group: Group) -> Iterator[tuple[int, bytes]]:
    position = 0
    for (offset, length), (following, _) in itertools.pairwise(group):
        position += length
        if following == offset + length + _ITEM_HEADER:
            yield position, bytes(data[offset + length : following])


def _runs(coded: Sequence[Run], parts: SplitPlan, groups: Sequence[Group]) -> tuple[Run, ...] | None:
    """The whole file: codestreams, streams of what is left as it is, header bytes between; None if absurd."""
    size = sum(run.length for run in parts.runs)
    taken = {run.offset: run for run in coded}
    inner: list[Run] = []
    for group in groups:
        start, end = group[0][0], group[-1][0] + group[-1][1]
        run = taken.get(start, Run(RunKind.STREAM, start, end - start))
        if inner and inner[-1].kind is run.kind is RunKind.STREAM:
            inner[-1] = replace(inner[-1], length=end - inner[-1].offset)
        else:
            inner.append(run)
    first, last = inner[0].offset, inner[-1].offset + inner[-1].length
    between = last - first - sum(run.length for run in inner)
    if between > MAX_HEADER // 2:
        return None
    before = min(first, MAX_HEADER // 2)
    after = min(size - last, MAX_HEADER - before - between)
    runs = [Run(RunKind.HEADER, 0, before), Run(RunKind.STREAM, before, first - before)]
    for run in inner:
        at = runs[-1].offset + runs[-1].length
        runs += [Run(RunKind.HEADER, at, run.offset - at), run]
    runs += [Run(RunKind.HEADER, last, after), Run(RunKind.STREAM, last + after, size - last - after)]
    return tuple(run for run in runs if run.length)


def frame_of(file: SpooledRanges, stream: Codestream, layout: PixelLayout) -> bytes:
    """The raw bytes of the frame in a codestream of a spooled file.

    Raises:
        UnreadableFile: the disk does not give it back.
        CodecError: it gives back something else than when the batch was planned.
    """
    data = np.empty(sum(length for _, length in stream.fragments), np.uint8)
    at = 0
    for offset, length in stream.fragments:
        file.into(data[at : at + length], offset)
        at += length
    raw = read_frame(stream.method, data.tobytes(), layout).raw
    if len(raw) != layout.frame_bytes:
        raise CodecError("codestream", "the spooled file changed")
    return raw
