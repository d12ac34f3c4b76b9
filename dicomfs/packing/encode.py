"""Encoding: a planned stack becomes segments in a pack, codec chosen by trial, bands coded on all cores.

Frames are read from the spooled files when their segment's turn comes, so memory is bounded by the segments
in flight, whatever the length of the series.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dicomfs.codec.base import ON_DISK
from dicomfs.codec.segment import band_of, encode_segment
from dicomfs.codec.trial import Trial, choose, repetition, sample_runs
from dicomfs.format.pack import PackWriter
from dicomfs.model import PixelLayout
from dicomfs.packing.coded import frame_of
from dicomfs.packing.plan import BatchPlan, FrameRef, orders
from dicomfs.packing.run import PackRun
from dicomfs.packing.spooled import SpooledRanges

Raw = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EncodedStack:
    """A stack that lies in a pack: its number there, and where each frame went."""

    number: int
    places: dict[tuple[int, int], int]
    """(instance, frame in file) -> frame in stack."""
    trial: Trial


class StackEncoder:
    """Encodes the stacks of one batch on the threads of a run; the codecs release the interpreter lock.

    While one stack is encoded, the trials of those that follow are made, so that short stacks keep all
    threads busy, too.
    """

    def __init__(self, plan: BatchPlan, run: PackRun) -> None:
        self._plan, self.run = plan, run
        self._untried = deque(range(len(plan.stacks)))
        self._tried: dict[int, list[Future[_Choice]]] = {}

    def encode(self, number: int, writer: PackWriter, advance: Callable[[int], None]) -> EncodedStack:
        """Choose order and codec of a stack of the batch by trial, then write its segments.

        Raises:
            UnreadableFile: the disk does not give back what was accepted.
            Stopped: somebody asked to stop.
        """
        frames, trial = self._chosen(number)
        layout = self._plan.stacks[number].layout
        at = writer.add_stack(layout, len(frames))
        waiting: deque[Future[_Segment]] = deque()
        try:
            self._write(at, layout, frames, trial, waiting, writer, advance)
        finally:
            for future in waiting:
                future.cancel()
        places = {(frame.instance, frame.number): place for place, frame in enumerate(frames)}
        return EncodedStack(at, places, trial)

    def _write(
        self,
        number: int,
        layout: PixelLayout,
        frames: Sequence[FrameRef],
        trial: Trial,
        waiting: deque[Future[_Segment]],
        writer: PackWriter,
        advance: Callable[[int], None],
    ) -> None:
        per_segment = trial.segment_frames

        def write_one() -> None:
            done = waiting.popleft().result()
            writer.add_segment(
                number, done.first, done.count, done.codec, trial.effort, done.bands, done.digests
            )
            advance(done.count * layout.frame_bytes)

        for first in range(0, len(frames), per_segment):
            self.run.check()
            run = frames[first : first + per_segment]
            waiting.append(self.run.pool.submit(self._segment, layout, first, run, trial))
            if len(waiting) > self.run.workers:
                write_one()
        while waiting:
            write_one()

    def close(self) -> None:
        """Make no more trials."""
        self._untried.clear()
        for future in itertools.chain.from_iterable(self._tried.values()):
            future.cancel()

    def _chosen(self, number: int) -> _Choice:
        """What the trials of a stack say; those of the next stacks are begun."""
        self._try(number)
        while self._untried and len(self._tried) <= self.run.workers:
            self._try(self._untried[0])
        tried = self._tried.pop(number)
        return min((future.result() for future in tried), key=lambda choice: choice[1].price)

    def _try(self, number: int) -> None:
        if number in self._tried:
            return
        self.run.check()
        with contextlib.suppress(ValueError):
            self._untried.remove(number)
        stack = self._plan.stacks[number]
        candidates = orders(stack.frames)
        if len(stack.frames) * stack.layout.frame_bytes > self.run.reorder_bytes:
            # Files are read in name order: another order would decode segments again and again once the
            # stack does not fit into the decoded cache.
            candidates = candidates[:1]
        self._tried[number] = [
            self.run.pool.submit(self._choose, frames, stack.layout, reordered=place > 0)
            for place, frames in enumerate(candidates)
        ]

    def _choose(self, frames: list[FrameRef], layout: PixelLayout, *, reordered: bool) -> _Choice:
        period = repetition([frame.position for frame in frames])
        samples = [
            self.gather(frames[run.start : run.stop]) for run in sample_runs(len(frames), layout, period)
        ]
        return frames, choose(
            samples,
            layout,
            self.run.profile,
            single=len(frames) == 1,
            frames=len(frames),
            period=period,
            reordered=reordered,
        )

    def gather(self, frames: Sequence[FrameRef]) -> Raw:
        """The raw bytes of frames, shape (frames, frame bytes).

        Raises:
            UnreadableFile: the disk does not give them back.
            CodecError: a codestream is no longer what it was when the batch was planned.
        """
        layout = self._layout_of(frames[0])
        out = np.empty((len(frames), layout.frame_bytes), dtype=np.uint8)
        for instance, run in itertools.groupby(enumerate(frames), key=lambda one: one[1].instance):
            with SpooledRanges(self._plan.instances[instance].path) as file:
                for row, frame in run:
                    if frame.codestream is None:
                        file.into(out[row], frame.offset)
                    else:
                        out[row] = np.frombuffer(frame_of(file, frame.codestream, layout), np.uint8)
        return out

    def _layout_of(self, frame: FrameRef) -> PixelLayout:
        layout = self._plan.instances[frame.instance].split.layout
        assert layout is not None
        return layout

    def _segment(
        self, layout: PixelLayout, first_frame: int, frames: Sequence[FrameRef], trial: Trial
    ) -> _Segment:
        raw = self.gather(frames)
        coded = encode_segment(raw, layout, trial.codec, trial.settings)
        bands = [(band.first_row, band.rows, band.payload) for band in coded.bands]
        digests = [
            [xxhash.xxh3_64_intdigest(frame.data) for frame in band_of(raw, layout, first, rows)]
            for first, rows, _ in bands
        ]
        return _Segment(
            first_frame, len(frames), ON_DISK[coded.codec], bands, np.array(digests, dtype=np.uint64).T
        )


_Choice = tuple[list[FrameRef], Trial]
"""Frames in an order, and what the trial of that order says."""


@dataclass(frozen=True, slots=True)
class _Segment:
    first: int
    count: int
    codec: int
    bands: list[tuple[int, int, bytes]]
    digests: npt.NDArray[np.uint64]
