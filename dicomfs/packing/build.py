"""Building a batch: pixel and stream packs first, then the header pack that refers to them.

Owns which object a stack or stream goes to: one pack per study and class of content, so that what leaves
the house never mixes pixels with identity.  Writes to the staging folder only.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dicomfs.dicom.pixels import Run, RunKind
from dicomfs.format.header import InstanceEntry, SeriesPart
from dicomfs.format.pack import PackWriter
from dicomfs.model import (
    CodedPiece,
    FramePiece,
    HeaderPiece,
    ObjectKey,
    PackKind,
    Piece,
    StreamPiece,
    TranscodedPiece,
)
from dicomfs.packing.encode import EncodedStack, StackEncoder
from dicomfs.packing.plan import BatchPlan, InstancePlan, Link, StackPlan
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import Staged, Staging
from dicomfs.packing.spooled import SpooledRanges
from dicomfs.packing.streams import StreamPlace, StreamWriter, Where
from dicomfs.packing.texts import BatchTexts


@dataclass(slots=True)
class BuiltBatch:
    """The staged packs of a batch and the tables of its header pack."""

    packs: list[Staged] = field(default_factory=list)
    headers: Staged | None = None
    parts: list[SeriesPart] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    """Per part, the instances of the batch behind its rows."""
    stacks: list[EncodedStack] = field(default_factory=list)


@dataclass(slots=True)
class Places:
    """Where the stacks and streams of a batch went."""

    stacks: dict[int, tuple[ObjectKey, EncodedStack]] = field(default_factory=dict)
    """Stack of the batch -> its pack and what became of it."""
    streams: dict[Where, tuple[ObjectKey, StreamPlace]] = field(default_factory=dict)


def build_batch(
    plan: BatchPlan,
    staging: Staging,
    encoder: StackEncoder,
    part_number: Callable[[int], int],
    high_water: dict[str, int],
    advance: Callable[[int], None],
    texts: BatchTexts,
) -> BuiltBatch:
    """Write the packs of a batch.

    ``part_number`` gives the next part of a series; ``advance`` is told the raw bytes that were coded;
    ``texts`` says what headers share.

    Raises:
        TierFull: the disk is full.
    """
    built = BuiltBatch()
    places = Places()
    study_of = {index: study.number for _, study, _, indexes in plan.series for index in indexes}
    _write_stacks(plan, study_of, staging, encoder, places, built, advance)
    _write_streams(plan, study_of, staging, encoder.run, places, built, advance)
    digests = {pack.key: pack.summary.index_digest for pack in built.packs}
    digests |= {link.key: link.index_digest for link in plan.links.values() if isinstance(link, Link)}
    parts = []
    for patient, study, series, indexes in plan.series:
        entries = [instance_entry(plan, index, places) for index in indexes]
        named = {
            piece.pack for entry in entries for piece in entry.pieces if not isinstance(piece, HeaderPiece)
        }
        packs = {key: digests[key] for key in named}
        part = SeriesPart(patient, study, series, part_number(series.number), high_water, entries, packs)
        headers = [header_bytes(plan.instances[index], index, places) for index in indexes]
        parts.append((part, headers))
        built.rows.append(indexes)
        advance(sum(entry.header_length for entry in entries))
    advance(_linked_bytes(plan))
    built.headers, built.parts = staging.write_headers(parts, texts.choose)
    built.packs += texts.staged(sorted({key for part in built.parts for key in part.packs}))
    return built


def _write_stacks(
    plan: BatchPlan,
    study_of: dict[int, int],
    staging: Staging,
    encoder: StackEncoder,
    places: Places,
    built: BuiltBatch,
    advance: Callable[[int], None],
) -> None:
    groups: dict[tuple[int, PackKind], list[int]] = defaultdict(list)
    for number, stack in enumerate(plan.stacks):
        groups[(study_of[stack.frames[0].instance], stack.kind)].append(number)
    for (_, kind), numbers in groups.items():
        encoded: dict[int, EncodedStack] = {}

        def fill(
            writer: PackWriter, numbers: list[int] = numbers, encoded: dict[int, EncodedStack] = encoded
        ) -> None:
            for number in numbers:
                encoded[number] = _encode(number, plan.stacks[number], encoder, writer, advance)

        staged = staging.write_pack(kind, fill)
        built.packs.append(staged)
        built.stacks += encoded.values()
        places.stacks.update({number: (staged.key, stack) for number, stack in encoded.items()})


def _encode(
    number: int, stack: StackPlan, encoder: StackEncoder, writer: PackWriter, advance: Callable[[int], None]
) -> EncodedStack:
    """Encode a stack; ``advance`` is told the bytes of the files, which codestreams are shorter than."""
    coded = [frame.codestream.run.length for frame in stack.frames if frame.codestream is not None]
    if not coded:
        return encoder.encode(number, writer, advance)
    encoded = encoder.encode(number, writer, lambda _: None)
    advance(sum(coded) + (len(stack.frames) - len(coded)) * stack.layout.frame_bytes)
    return encoded


def _linked_bytes(plan: BatchPlan) -> int:
    """Bytes of the files whose frames are not stored anew."""
    size = 0
    for index, number in plan.links:
        instance = plan.instances[index]
        runs = [run for run in instance.split.runs if run.kind is RunKind.CODED]
        if runs:
            size += runs[number].length
        elif instance.split.layout is not None:
            size += instance.split.layout.frame_bytes
    return size


def _write_streams(
    plan: BatchPlan,
    study_of: dict[int, int],
    staging: Staging,
    run: PackRun,
    places: Places,
    built: BuiltBatch,
    advance: Callable[[int], None],
) -> None:
    groups: dict[int, list[Where]] = defaultdict(list)
    for index, instance in enumerate(plan.instances):
        for number, what in enumerate(instance.split.runs):
            if what.kind in (RunKind.STREAM, RunKind.TRANSCODED):
                groups[study_of[index]].append((index, number))
    for wheres in groups.values():
        written: dict[Where, StreamPlace] = {}

        def fill(
            writer: PackWriter, wheres: list[Where] = wheres, written: dict[Where, StreamPlace] = written
        ) -> None:
            written.update(StreamWriter(plan, run, writer, advance).write(wheres))

        staged = staging.write_pack(PackKind.OPAQUE, fill)
        built.packs.append(staged)
        places.streams.update({where: (staged.key, place) for where, place in written.items()})


def instance_entry(plan: BatchPlan, index: int, places: Places) -> InstanceEntry:
    """The row of an instance in the table of its series."""
    instance = plan.instances[index]
    record = instance.record
    return InstanceEntry(
        position=record.id.position,
        name_level=record.name_level,
        instance_number=record.number,
        sop_instance_uid=record.sop_instance_uid,
        size=record.size,
        mtime_ns=record.mtime_ns,
        sha256=record.sha256,
        order=_order(plan, index, places),
        pieces=tuple(_pieces(plan, index, places)),
        note=instance.split.reason,
    )


def _order(plan: BatchPlan, index: int, places: Places) -> int:
    """Place along the slices: where the instance's first frame lies in its stack, else in name order."""
    return _place(plan, (index, 0), places)[2] if plan.instances[index].split.frame_count else index


def _place(plan: BatchPlan, frame: tuple[int, int], places: Places) -> tuple[ObjectKey, int, int]:
    """Pack, stack and number in it of a frame (instance, number in its file), stored now or before."""
    link = plan.links.get(frame)
    if isinstance(link, tuple):
        frame, link = link, plan.links.get(link)
    if isinstance(link, Link):
        return link.key, link.stack, link.frame
    stack = plan.instances[frame[0]].stack
    assert stack is not None
    key, encoded = places.stacks[stack]
    return key, encoded.number, encoded.places[frame]


def _pieces(plan: BatchPlan, index: int, places: Places) -> Iterator[Piece]:
    frame, instance = 0, plan.instances[index]
    for run, what in enumerate(instance.split.runs):
        if what.kind is RunKind.HEADER:
            yield HeaderPiece(what.length)
        elif what.kind is RunKind.FRAMES:
            yield from _frame_pieces(plan, index, places)
        elif what.kind is RunKind.CODED:
            yield _coded_piece(instance, what, _place(plan, (index, frame), places))
            frame += 1
        else:
            key, place = places.streams[(index, run)]
            yield _stream_piece(instance, what, key, place)


def _frame_pieces(plan: BatchPlan, index: int, places: Places) -> Iterator[Piece]:
    count = plan.instances[index].split.frame_count
    at = [_place(plan, (index, frame), places) for frame in range(count)]
    for (key, stack), run in itertools.groupby(at, key=lambda place: place[:2]):
        for first, frames, step in progressions([frame for _, _, frame in run]):
            yield FramePiece(key, stack, first, frames, step)


def _coded_piece(instance: InstancePlan, run: Run, place: tuple[ObjectKey, int, int]) -> Piece:
    stream = instance.codestreams[run.offset]
    return CodedPiece(*place, stream.method, len(stream.recipe), run.length, stream.digest)


def _stream_piece(instance: InstancePlan, run: Run, key: ObjectKey, place: StreamPlace) -> Piece:
    if place.recipe is None:
        return StreamPiece(key, place.stream, place.offset, run.length)
    found = instance.codestreams[run.offset]
    return TranscodedPiece(
        key,
        place.stream,
        place.offset,
        place.stored,
        found.method,
        len(place.recipe),
        run.length,
        found.digest,
    )


def progressions(numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """A sequence as arithmetic progressions (first, count, step); a single number has step 1."""
    start = 0
    while start < len(numbers):
        stop = start + 1
        step = numbers[stop] - numbers[start] if stop < len(numbers) else 1
        while stop < len(numbers) and numbers[stop] - numbers[stop - 1] == step:
            stop += 1
        if stop - start == 1:
            step = 1
        yield numbers[start], stop - start, step
        start = stop


def header_bytes(instance: InstancePlan, index: int, places: Places) -> bytes:
    """What lies in the header block: the header bytes of the file, then the recipes of its codestreams."""
    with SpooledRanges(instance.path) as file:
        parts = [
            file.read(run.offset, run.length) for run in instance.split.runs if run.kind is RunKind.HEADER
        ]
    for number, run in enumerate(instance.split.runs):
        if run.kind is RunKind.CODED:
            parts.append(instance.codestreams[run.offset].recipe)
        elif run.kind is RunKind.TRANSCODED:
            parts.append(places.streams[(index, number)][1].recipe or b"")
    return b"".join(parts)
