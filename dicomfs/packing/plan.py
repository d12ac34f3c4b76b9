"""Planning: which spooled instances are packed together, how each is split, which frames form a stack.

Produces plain values; writes nothing.  A hint in the metadata may cost density, never correctness: whatever
cannot be split becomes a stream.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.geometry import frame_order, order_keys, stack_key
from dicomfs.dicom.part10 import Buffer, scan
from dicomfs.dicom.pixels import Run, RunKind, SplitPlan, burned_in, split
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import SpooledRecord
from dicomfs.model import InstanceId, ObjectKey, PackKind, PatientNode, PixelLayout, SeriesNode, StudyNode
from dicomfs.packing.coded import MAX_CODESTREAMS, Codestream, take_apart, untried_bytes
from dicomfs.packing.fingerprint import LARGEST_BYTES, fingerprints
from dicomfs.packing.spooled import spooled_bytes
from dicomfs.spool import Spool

BATCH_BYTES = 1 << 30
"""Raw bytes sealed and committed together; bounds what a crash makes us pack again."""

BATCH_INSTANCES = 2000
"""Instances committed together: more would keep the catalog's one writer busy for over 100 ms."""

_MAX_CODESTREAMS = 1 << 19
"""Codestreams of a batch that are taken apart: each is a piece in the tables of its header pack."""


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One frame in a spooled file, with what it can be ordered by."""

    instance: int
    """Index of the instance in the batch."""
    number: int
    """Index of the frame in its file."""
    offset: int
    """Where the frame's bytes begin in the file."""
    position: float | None
    """Along the slice normal, mm."""
    time: float | None
    """What separates repetitions of one position, in the file's own unit."""
    name_order: int
    """Place of the instance in name order."""
    codestream: Codestream | None = None
    """What holds the frame, where the file does not hold it as it is."""
    fingerprints: tuple[int, ...] = ()
    """By which it may be found among frames that are stored."""


@dataclass(frozen=True, slots=True)
class Link:
    """A frame that is stored already."""

    key: ObjectKey
    index_digest: int
    stack: int
    frame: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """How much is looked at where a sample is enough."""

    codestreams: int
    """Of each file, from its middle."""
    fingerprinted: int
    """Bytes of a file above which equal frames are not looked for."""


@dataclass(slots=True)
class StackPlan:
    """Frames of one series with one layout and one kind."""

    series: int
    kind: PackKind
    layout: PixelLayout
    frames: list[FrameRef] = field(default_factory=list)


@dataclass(slots=True)
class InstancePlan:
    """One spooled file: how it is split and which stack its frames are in."""

    record: SpooledRecord
    path: Path
    split: SplitPlan
    stack: int | None = None
    """Index of its stack in the batch."""
    codestreams: dict[int, Codestream] = field(default_factory=dict)
    """By the offset of their run."""
    untried_bytes: int = 0
    """Of codestreams that nobody tried to take apart, for there was a limit."""


@dataclass(slots=True)
class BatchPlan:
    """What is sealed and committed together."""

    instances: list[InstancePlan] = field(default_factory=list)
    stacks: list[StackPlan] = field(default_factory=list)
    series: list[tuple[PatientNode, StudyNode, SeriesNode, list[int]]] = field(default_factory=list)
    """Per series: its nodes and the indexes of its instances, in name order."""
    codestreams: int = 0
    """How many codestreams are taken apart."""
    links: dict[tuple[int, int], Link | tuple[int, int]] = field(default_factory=dict)
    """(instance, frame in file) that is not stored anew -> its place, or the frame of the batch it equals."""

    def keep_unlinked(self) -> None:
        """Take the frames in ``links`` out of the stacks, and stacks without frames out of the batch."""
        numbers: dict[int, int] = {}
        kept: list[StackPlan] = []
        for number, stack in enumerate(self.stacks):
            stack.frames = [one for one in stack.frames if (one.instance, one.number) not in self.links]
            if stack.frames:
                numbers[number] = len(kept)
                kept.append(stack)
        self.stacks = kept
        for instance in self.instances:
            instance.stack = numbers.get(instance.stack) if instance.stack is not None else None

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw files."""
        return sum(plan.record.size for plan in self.instances)


def batches(
    catalog: Catalog, only: Container[int] | None = None
) -> Iterator[list[tuple[int, list[SpooledRecord]]]]:
    """Groups of (series, records in name order) of bounded size, over all series with spooled instances now.

    ``only`` are the numbers of those to take, None for all.

    Each series is read when its turn comes, once: what the caller does with earlier groups changes nothing.
    """
    group: list[tuple[int, list[SpooledRecord]]] = []
    waiting_bytes = waiting = 0
    wanted = [series for series in catalog.spooled_series() if only is None or series in only]
    for series in _by_study(catalog, wanted):
        part: list[SpooledRecord] = []
        for record in _in_name_order(catalog, series):
            if waiting and (waiting_bytes + record.size > BATCH_BYTES or waiting >= BATCH_INSTANCES):
                if part:
                    group.append((series, part))
                yield group
                group, part, waiting_bytes, waiting = [], [], 0, 0
            part.append(record)
            waiting_bytes += record.size
            waiting += 1
        if part:
            group.append((series, part))
    if group:
        yield group


def _by_study(catalog: Catalog, numbers: Sequence[int]) -> list[int]:
    def place(number: int) -> tuple[int, int, int]:
        series = catalog.series(number)
        return (catalog.study(series.study).patient, series.study, number)

    return sorted(numbers, key=place)


def _in_name_order(catalog: Catalog, series: int) -> list[SpooledRecord]:
    return sorted(catalog.spooled_of(series), key=lambda r: (r.number is None, r.number or 0, r.id.position))


def plan_batch(
    catalog: Catalog,
    spool: Spool,
    group: Sequence[tuple[int, Sequence[SpooledRecord]]],
    whole: Mapping[InstanceId, str],
) -> BatchPlan:
    """Split every instance of a group and gather its frames in stacks.

    Instances in ``whole`` are not split, for the reason given there.
    """
    plan = BatchPlan()
    for number, records in group:
        series = catalog.series(number)
        study = catalog.study(series.study)
        files = [(record, spool.path(record.id, record.sha256)) for record in records]
        plan_series(plan, (catalog.patient(study.patient), study, series), files, whole)
    return plan


def plan_series(
    plan: BatchPlan,
    nodes: tuple[PatientNode, StudyNode, SeriesNode],
    files: Sequence[tuple[SpooledRecord, Path]],
    whole: Mapping[InstanceId, str],
    sampled: Sampled | None = None,
) -> None:
    """Add a series to a batch: its files in name order; for those who want a sample, not all of a large one.

    Raises:
        UnreadableFile: the disk does not give a file back.
    """
    indexes = []
    stacks: dict[object, int] = {}
    for record, path in files:
        indexes.append(len(plan.instances))
        if record.id in whole:
            parts = SplitPlan("opaque", whole[record.id], (Run(RunKind.STREAM, 0, record.size),), None, 0)
            plan.instances.append(InstancePlan(record, path, parts))
        else:
            _plan_instance(plan, stacks, record, path, sampled)
    plan.series.append((*nodes, indexes))


def _plan_instance(
    plan: BatchPlan, stacks: dict[object, int], record: SpooledRecord, path: Path, sampled: Sampled | None
) -> None:
    with spooled_bytes(path, read_first=sampled is None) as data:
        found = scan(data)
        parts = split(data, found)
        codestreams: dict[int, Codestream] = {}
        most = MAX_CODESTREAMS if sampled is None else sampled.codestreams
        if parts.kind == "opaque" and found.fragments and plan.codestreams < _MAX_CODESTREAMS:
            parts, codestreams = take_apart(data, found, parts, most)
        instance = InstancePlan(record, path, parts, codestreams=codestreams)
        if codestreams and sampled is not None:
            instance.untried_bytes = untried_bytes(data, found, most)
        index = len(plan.instances)
        plan.instances.append(instance)
        plan.codestreams += len(codestreams)
        if parts.layout is None or parts.frame_count == 0:
            return
        described = attributes(found)
        kind = PackKind.BURNED if burned_in(found) else PackKind.PIXEL
        key = (kind, stack_key(described, parts.layout))
        if key not in stacks:
            stacks[key] = len(plan.stacks)
            plan.stacks.append(StackPlan(record.id.series, kind, parts.layout))
        instance.stack = stacks[key]
        order = frame_order(data, found) if parts.frame_count > 1 else None
        known = sampled is None or record.size <= sampled.fingerprinted
        plan.stacks[instance.stack].frames += _frames(
            instance, described, index, order, data if known else None
        )


def _frames(
    instance: InstancePlan,
    described: Attributes,
    index: int,
    order: Sequence[tuple[float | None, float | None]] | None,
    data: Buffer | None,
) -> Iterator[FrameRef]:
    """The frames of an instance; ``data`` are its bytes, None where nobody looks for equal frames."""
    layout = instance.split.layout
    assert layout is not None
    position, time, _ = order_keys(described)
    for number, (offset, codestream) in enumerate(_places(instance)):
        if order is not None and len(order) == instance.split.frame_count:
            position, time = order[number]
        if layout.frame_bytes > LARGEST_BYTES or data is None:
            found: tuple[int, ...] = ()
        elif codestream is None:
            found = fingerprints(bytes(data[offset : offset + layout.frame_bytes]), layout)
        else:
            found = codestream.fingerprints
        yield FrameRef(index, number, offset, position, time, index, codestream, found)


def _places(instance: InstancePlan) -> Iterator[tuple[int, Codestream | None]]:
    """Where each frame of a file lies, and in which codestream."""
    parts = instance.split
    assert parts.layout is not None
    for run in parts.runs:
        if run.kind is RunKind.FRAMES:
            for number in range(parts.frame_count):
                yield run.offset + number * parts.layout.frame_bytes, None
        elif run.kind is RunKind.CODED:
            yield run.offset, instance.codestreams[run.offset]


def orders(frames: Sequence[FrameRef]) -> list[list[FrameRef]]:
    """The orders worth a trial: as named (time, then position), and position, then time.

    Only codecs that look at neighbours see the difference.  One order is returned where the second would
    be the same, or where positions are not known for all frames.
    """
    named = sorted(frames, key=lambda f: (f.name_order, f.number))
    places = [frame.position for frame in frames]
    if any(place is None for place in places):
        return [named]
    by_place = sorted(named, key=lambda f: (f.position or 0.0, f.time or 0.0, f.name_order, f.number))
    if len(set(places)) == len(places):
        # One frame per position: neighbours in space are the only sensible neighbours.
        return [by_place]
    return [named] if by_place == named else [named, by_place]
