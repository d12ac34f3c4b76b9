"""Encoding: a planned stack becomes segments in a pack, order and codec chosen by trial.

Frames are read from the spooled files when their segment's turn comes, so memory is bounded by the segments
in flight, whatever the length of the series.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from dicomfs.codec.trial import Trial, choose, repetition, sample_runs
from dicomfs.format.pack import PackWriter
from dicomfs.model import PixelLayout
from dicomfs.packing.coded import frame_of
from dicomfs.packing.plan import BatchPlan, FrameRef, orders
from dicomfs.packing.run import PackRun
from dicomfs.packing.segments import ALONG_SLICES, AS_NAMED, Raw, SegmentWriter, decision_of
from dicomfs.packing.spooled import SpooledRanges


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
        self._tried: dict[int, list[Future[Choice]]] = {}

    def encode(self, number: int, writer: PackWriter, advance: Callable[[int], None]) -> EncodedStack:
        """Choose order and codec of a stack of the batch by trial, then write its segments.

        Raises:
            UnreadableFile: the disk does not give back what was accepted.
            Stopped: somebody asked to stop.
        """
        choice = self.chosen(number)
        frames, layout = choice.frames, self._plan.stacks[number].layout
        decision = decision_of(choice.trial, choice.order, choice.passed_over)
        at = writer.add_stack(layout, len(frames), decision)

        def gather(first: int, count: int) -> Raw:
            return self.gather(frames[first : first + count])

        SegmentWriter(self.run, writer, advance).write(at, layout, len(frames), choice.trial, gather)
        places = {(frame.instance, frame.number): place for place, frame in enumerate(frames)}
        return EncodedStack(at, places, choice.trial)

    def close(self) -> None:
        """Make no more trials."""
        self._untried.clear()
        for future in itertools.chain.from_iterable(self._tried.values()):
            future.cancel()

    def chosen(self, number: int) -> Choice:
        """What the trials of a stack say; those of the next stacks are begun."""
        self._try(number)
        while self._untried and len(self._tried) <= self.run.workers:
            self._try(self._untried[0])
        made = [future.result() for future in self._tried.pop(number)]
        best, *others = sorted(made, key=lambda choice: choice.trial.price)
        return dataclasses.replace(best, passed_over=others[0].trial) if others else best

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
            self.run.pool.submit(self._choose, frames, stack.layout, at > 0)
            for at, frames in enumerate(candidates)
        ]

    def _choose(self, frames: list[FrameRef], layout: PixelLayout, reordered: bool) -> Choice:
        period = repetition([frame.position for frame in frames])
        runs = sample_runs(len(frames), layout, period)
        samples = [self.gather([frames[at] for at in run]) for run in runs]
        trial = choose(
            samples,
            layout,
            self.run.profile,
            single=len(frames) == 1,
            frames=len(frames),
            period=period,
            reordered=reordered,
        )
        names = [(frame.name_order, frame.number) for frame in frames]
        return Choice(frames, trial, AS_NAMED if names == sorted(names) else ALONG_SLICES)

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


@dataclass(frozen=True, slots=True)
class Choice:
    """Frames in an order, and what the trial of that order says."""

    frames: list[FrameRef]
    trial: Trial
    order: int
    passed_over: Trial | None = None
    """The trial of the other order, where there was one."""
