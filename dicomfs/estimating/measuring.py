"""Measuring one series: a sample of its segments is planned, tried and coded by what packing uses.

Owns which files and segments of a series are the sample, and what they say of the rest.  Writes nothing to
any disk: packs are made in memory, read back and compared.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import xxhash

from dicomfs.codec.base import FROM_DISK
from dicomfs.codec.segment import decode_band
from dicomfs.dicom.pixels import Run, RunKind
from dicomfs.errors import MismatchError
from dicomfs.estimating.headers import more_header_bytes, series_part
from dicomfs.estimating.model import FoundFile, FoundSeries, Measured
from dicomfs.format.keys import pack_key
from dicomfs.format.pack import PackReader, PackWriter
from dicomfs.format.pack_index import SegmentIndex, StackIndex
from dicomfs.format.version import MAX_CHUNK
from dicomfs.index.records import SpooledRecord
from dicomfs.model import InstanceId, ObjectKey, PackKind
from dicomfs.new_nodes import new_patient, new_series, new_study
from dicomfs.packing.build import Places
from dicomfs.packing.encode import Choice, EncodedStack, StackEncoder
from dicomfs.packing.links import link_equals
from dicomfs.packing.plan import BatchPlan, FrameRef, Link, Sampled, StackPlan, plan_series
from dicomfs.packing.run import PackRun
from dicomfs.packing.segments import Raw, SegmentWriter, decision_of
from dicomfs.packing.streams import StreamPlace, StreamWriter

_MIB = 1 << 20
PLANNED_BYTES = 96 * _MIB
"""Bytes of the files of a series that are read; of longer series, runs of files that follow each other."""
_RUNS = 3
SEGMENTS = 3
"""Segments of a stack that are coded at least; of long stacks one of so many."""
_SHARE = 4
_STREAM_BYTES, _TRANSCODED_BYTES = 16 * _MIB, 2 * _MIB
"""Of byte streams, and of codestreams that are transcoded: so much is coded."""
_CODESTREAMS = 24
"""Compressed frames of one file that are taken apart."""
_ARCHIVE = bytes(16)


def measure(
    series: FoundSeries, run: PackRun, seen: set[tuple[int, int, int]], numbers: tuple[int, int]
) -> Measured:
    """What packing would make of a series; ``numbers`` are those that its study and itself would get.

    ``seen`` are the frames of series before it (kind of pack, bytes, fingerprint), which are not stored
    again; those of this one are added.

    Raises:
        UnreadableFile: a file cannot be read.
        MismatchError: a segment does not come back.
        Stopped: somebody asked to stop.
    """
    return _Measuring(series, run, seen, numbers).make()


def planned_files(files: Sequence[FoundFile], most_bytes: int = PLANNED_BYTES) -> list[FoundFile]:
    """All files of a series, or some runs of neighbours spread over it."""
    size = sum(file.size for file in files)
    if size <= most_bytes:
        return list(files)
    length = max(1, int(len(files) * most_bytes / size / _RUNS))
    if length * _RUNS >= len(files):
        return list(files)
    # The middle run lies in the middle of the series: a trial looks there.
    starts = [(2 * at + 1) * len(files) // (2 * _RUNS) - length // 2 for at in range(_RUNS)]
    return [file for start in starts for file in files[start : start + length]]


def sampled_segments(frames: int, length: int) -> list[range]:
    """Some whole segments of a stack, evenly spread; all of a short one."""
    count = -(-frames // length)
    wanted = max(SEGMENTS, -(-count // _SHARE))
    if wanted >= count:
        chosen = list(range(count))
    else:
        chosen = [(2 * at + 1) * count // (2 * wanted) for at in range(wanted)]
    return [range(at * length, min(frames, (at + 1) * length)) for at in chosen]


@dataclass(slots=True)
class _Measuring:
    """One series on its way."""

    series: FoundSeries
    run: PackRun
    seen: set[tuple[int, int, int]]
    numbers: tuple[int, int]
    sampled: int = 0
    codecs: set[str] = field(default_factory=set)
    once_s: float = 0.0
    """Processor time that longer series do not take more of: trials."""
    growing_s: float = 0.0
    """Processor time of the files that are planned."""

    def make(self) -> Measured:
        files = self.series.in_name_order()
        planned = planned_files(files)
        share = sum(file.size for file in files) / sum(file.size for file in planned)
        started = time.process_time()
        plan = self._planned(planned)
        self.growing_s += time.process_time() - started
        tried = _tried_share(plan)
        places = Places()
        pixel_fixed, pixels = self._pixels(plan, places, tried)
        stream_fixed, streams = self._streams(plan, places, tried)
        part, headers = series_part(plan, places)
        started = time.process_time()
        more = more_header_bytes(part, headers, len(files), tried)
        self.growing_s += time.process_time() - started
        return Measured(
            pixel_bytes=pixel_fixed + pixels * share,
            stream_bytes=stream_fixed + streams * share,
            part=part,
            headers=headers,
            more_header_bytes=more,
            cpu_s=self.once_s + self.growing_s * share,
            sampled_bytes=self.sampled,
            codecs=tuple(sorted(self.codecs)),
        )

    def _planned(self, files: Sequence[FoundFile]) -> BatchPlan:
        described = self.series.described
        study, number = self.numbers
        nodes = (
            new_patient(study, described),
            new_study(study, study, described),
            new_series(number, study, described),
        )
        records = [(_record(position, file), file.path) for position, file in enumerate(files)]
        plan = BatchPlan()
        plan_series(plan, nodes, records, {}, Sampled(_CODESTREAMS, PLANNED_BYTES))
        link_equals(plan, self.run)
        for stack in plan.stacks:
            self._link_seen(plan, stack)
        plan.keep_unlinked()
        return plan

    def _link_seen(self, plan: BatchPlan, stack: StackPlan) -> None:
        """Refer to frames of series before this one; remember those of this one."""
        for number, frame in enumerate(stack.frames):
            if not frame.fingerprints:
                continue
            name = (stack.kind.value, stack.layout.frame_bytes, frame.fingerprints[0])
            if name in self.seen:
                plan.links.setdefault((frame.instance, frame.number), Link(_ELSEWHERE, 0, 0, number))
            self.seen.add(name)

    def _pixels(self, plan: BatchPlan, places: Places, tried: float) -> tuple[int, float]:
        """Bytes that packs of frames have anyway, and those that grow with the series."""
        encoder = StackEncoder(plan, self.run)
        kinds, growing = set(), 0.0
        try:
            for number, stack in enumerate(plan.stacks):
                started = time.process_time()
                choice = encoder.chosen(number)
                self.once_s += time.process_time() - started
                self.codecs.add(choice.trial.codec.name.lower())
                frames = choice.frames
                at = {(frame.instance, frame.number): place for place, frame in enumerate(frames)}
                places.stacks[number] = (_key(stack.kind), EncodedStack(number, at, choice.trial))
                runs = sampled_segments(len(frames), choice.trial.segment_frames)
                shown = [frames[place] for run in runs for place in run]
                coded = any(frame.codestream is not None for frame in shown)
                scale = len(frames) / len(shown) * (tried if coded else 1.0)
                started = time.process_time()
                size = self._coded(stack, shown, choice, encoder)
                self.growing_s += (time.process_time() - started) * scale
                growing += (size - _empty_pack(stack.kind)) * scale
                kinds.add(stack.kind)
        finally:
            encoder.close()
        return sum(map(_empty_pack, kinds)), growing

    def _coded(
        self, stack: StackPlan, shown: Sequence[FrameRef], choice: Choice, encoder: StackEncoder
    ) -> int:
        """Bytes of a pack of these frames, which are read back and compared."""
        sink = io.BytesIO()
        writer = PackWriter(sink, stack.kind, _ARCHIVE, profile=self.run.profile.value)
        number = writer.add_stack(
            stack.layout, len(shown), decision_of(choice.trial, choice.order, choice.passed_over)
        )

        def gather(first: int, count: int) -> Raw:
            return encoder.gather(shown[first : first + count])

        def advance(amount: int) -> None:
            self.sampled += amount
            self.run.progress.advance(amount)

        SegmentWriter(self.run, writer, advance).write(number, stack.layout, len(shown), choice.trial, gather)
        size = writer.finish().size
        list(self.run.pool.map(_compare, _segments(sink.getvalue())))
        return size

    def _streams(self, plan: BatchPlan, places: Places, tried: float) -> tuple[int, float]:
        """As `_pixels`, of opaque packs."""
        sample, transcoded, whole = _stream_sample(plan, places)
        if not sample.instances:
            return 0, 0.0
        sink = io.BytesIO()
        writer = PackWriter(sink, PackKind.OPAQUE, _ARCHIVE)
        started = time.process_time()
        wheres = [(at, run) for at, one in enumerate(sample.instances) for run in range(len(one.split.runs))]
        written = StreamWriter(sample, self.run, writer, self.run.progress.advance).write(wheres)
        size = writer.finish().size - _empty_pack(PackKind.OPAQUE)
        shown = sum(run.length for one in sample.instances for run in one.split.runs)
        self.sampled += shown
        scale = whole / shown * (tried if transcoded else 1.0)
        self.growing_s += (time.process_time() - started) * scale
        recipes = [place.recipe for place in written.values() if place.recipe is not None]
        for where, (key, place) in places.streams.items():
            if place.recipe is not None:
                recipe = recipes[0] if recipes else None
                places.streams[where] = (key, replace(place, recipe=recipe))
        if transcoded and recipes:
            self.codecs.add("jpegxl")
        return _empty_pack(PackKind.OPAQUE), size * scale


def _record(position: int, file: FoundFile) -> SpooledRecord:
    """A record as acceptance would make it, but for the digest: that needs all bytes of the file."""
    stand_in = hashlib.sha256(os.fsencode(file.path)).digest()
    return SpooledRecord(
        InstanceId(1, position), file.uid, file.number, 0, file.size, file.mtime_ns, stand_in
    )


def _tried_share(plan: BatchPlan) -> float:
    """Bytes of codestreams for each that somebody tried to take apart."""
    untried = sum(instance.untried_bytes for instance in plan.instances)
    tried = sum(
        sum(run.length for run in instance.split.runs if run.kind is not RunKind.HEADER)
        - instance.untried_bytes
        for instance in plan.instances
        if instance.codestreams
    )
    return 1 + untried / tried if tried > 0 else 1.0


def _stream_sample(plan: BatchPlan, places: Places) -> tuple[BatchPlan, bool, int]:
    """Some stream runs of a plan, whether they are transcoded, and the bytes that they stand for.

    Every run gets a place, as if it had been written.
    """
    whole = transcoded = 0
    runs: list[tuple[int, Run]] = []
    for index, instance in enumerate(plan.instances):
        for number, run in enumerate(instance.split.runs):
            if run.kind not in (RunKind.STREAM, RunKind.TRANSCODED):
                continue
            recipe = b"" if run.kind is RunKind.TRANSCODED else None
            place = StreamPlace(len(places.streams), 0, run.length, recipe)
            places.streams[index, number] = (_key(PackKind.OPAQUE), place)
            if run.kind is RunKind.STREAM and instance.codestreams:
                continue  # what was not tried, or not worth it: counted by the share of those that were
            whole += run.length
            transcoded += run.kind is RunKind.TRANSCODED
            runs += [(index, piece) for piece in _pieces_of(run)]
    limit = _TRANSCODED_BYTES if transcoded else _STREAM_BYTES
    shown = _spread(runs, limit)
    sample = BatchPlan()
    for index, each in groupby(shown, key=lambda one: one[0]):
        instance = plan.instances[index]
        parts = replace(instance.split, runs=tuple(run for _, run in each))
        sample.instances.append(replace(instance, split=parts))
    return sample, bool(transcoded), whole


def _pieces_of(run: Run) -> Iterator[Run]:
    """A run in chunks as packs have them; codestreams stay whole."""
    if run.kind is RunKind.TRANSCODED:
        yield run
        return
    for start in range(0, run.length, MAX_CHUNK):
        yield Run(run.kind, run.offset + start, min(MAX_CHUNK, run.length - start))


def _spread(runs: Sequence[tuple[int, Run]], limit: int) -> list[tuple[int, Run]]:
    """Some of the runs, evenly spread, of about ``limit`` bytes; at least one."""
    size = sum(run.length for _, run in runs)
    count = len(runs) if size <= limit else max(1, len(runs) * limit // size)
    return [runs[(2 * at + 1) * len(runs) // (2 * count)] for at in range(count)]


@functools.cache
def _empty_pack(kind: PackKind) -> int:
    return PackWriter(io.BytesIO(), kind, _ARCHIVE).finish().size


def _key(kind: PackKind) -> ObjectKey:
    """A key that looks like that of a pack."""
    return pack_key(kind, hashlib.sha256(kind.prefix.encode()).hexdigest())


_ELSEWHERE = _key(PackKind.PIXEL)


def _segments(pack: bytes) -> Iterator[tuple[PackReader, StackIndex, SegmentIndex]]:
    reader = PackReader(lambda offset, length: pack[offset : offset + length], len(pack), "sample")
    for stack in reader.stacks:
        for segment in stack.segments:
            yield reader, stack, segment


def _compare(one: tuple[PackReader, StackIndex, SegmentIndex]) -> None:
    """Decode a segment, as sealing does."""
    reader, stack, segment = one
    codec = FROM_DISK[segment.codec]
    for number, band in enumerate(segment.bands):
        payload = reader.read_band(band)
        for frame, raw in decode_band(payload, stack.layout, band.rows, segment.frames, codec).items():
            if xxhash.xxh3_64_intdigest(raw) != int(segment.digests[frame, number]):
                raise MismatchError("a sampled segment")
