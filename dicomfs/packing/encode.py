"""Encoding: a planned stack becomes segments in a pack, codec chosen by trial, bands coded on all cores.

Frames are read from the spooled files when their segment's turn comes, so memory is bounded by the segments
in flight, whatever the length of the series.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dicomfs.codec.base import ON_DISK, CodecId
from dicomfs.codec.segment import band_rows, encode_band, segment_frames
from dicomfs.codec.trial import Profile, Trial, choose
from dicomfs.errors import CodecError
from dicomfs.format.pack import PackWriter
from dicomfs.model import PixelLayout
from dicomfs.packing.plan import BatchPlan, FrameRef, StackPlan, mapped, orders

logger = logging.getLogger(__name__)

_SAMPLE_SEGMENTS = 3
_SAMPLE_BYTES = 4 << 20
"""Raw bytes of one sampled run: enough neighbours for codecs that look at them, yet cheap."""

Raw = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EncodedStack:
    """A stack that lies in a pack: its number there, and where each frame went."""

    number: int
    places: dict[tuple[int, int], int]
    """(instance, frame in file) -> frame in stack."""
    trial: Trial


class StackEncoder:
    """Encodes stacks of one batch with a pool of threads; the codecs release the interpreter lock."""

    def __init__(
        self, plan: BatchPlan, pool: ThreadPoolExecutor, workers: int, profile: Profile, reorder_bytes: int
    ) -> None:
        self._plan, self._pool, self._workers, self._profile = plan, pool, workers, profile
        self._reorder_bytes = reorder_bytes

    def encode(self, stack: StackPlan, writer: PackWriter, advance: Callable[[int], None]) -> EncodedStack:
        """Choose order and codec by trial, then write the stack's segments."""
        frames, trial = self._choose(stack)
        layout = stack.layout
        number = writer.add_stack(layout, len(frames))
        per_segment = segment_frames(layout, self._profile)
        waiting: deque[Future[_Segment]] = deque()

        def write_one() -> None:
            done = waiting.popleft().result()
            writer.add_segment(
                number, done.first, done.count, done.codec, trial.effort, done.bands, done.digests
            )
            advance(done.count * layout.frame_bytes)

        for first in range(0, len(frames), per_segment):
            run = frames[first : first + per_segment]
            waiting.append(self._pool.submit(self._segment, layout, first, run, trial))
            if len(waiting) > self._workers:
                write_one()
        while waiting:
            write_one()
        places = {(frame.instance, frame.number): place for place, frame in enumerate(frames)}
        return EncodedStack(number, places, trial)

    def _choose(self, stack: StackPlan) -> tuple[list[FrameRef], Trial]:
        candidates = orders(stack.frames)
        if len(stack.frames) * stack.layout.frame_bytes > self._reorder_bytes:
            # Files are read in name order: another order would decode segments again and again once the
            # stack does not fit into the decoded cache.
            candidates = candidates[:1]
        best: tuple[list[FrameRef], Trial] | None = None
        for frames in candidates:
            samples = [self.gather(run) for run in _sample_runs(frames, stack.layout)]
            trial = choose(samples, stack.layout, self._profile, single=len(frames) == 1)
            if best is None or trial.price < best[1].price:
                best = (frames, trial)
        assert best is not None
        return best

    def gather(self, frames: Sequence[FrameRef]) -> Raw:
        """The raw bytes of frames, shape (frames, frame bytes)."""
        layout = self._layout_of(frames[0])
        out = np.empty((len(frames), layout.frame_bytes), dtype=np.uint8)
        for instance, run in itertools.groupby(enumerate(frames), key=lambda one: one[1].instance):
            with mapped(self._plan.instances[instance].path) as data:
                for row, frame in run:
                    out[row] = np.frombuffer(data, np.uint8, layout.frame_bytes, frame.offset)
        return out

    def _layout_of(self, frame: FrameRef) -> PixelLayout:
        layout = self._plan.instances[frame.instance].split.layout
        assert layout is not None
        return layout

    def _segment(self, layout: PixelLayout, first: int, frames: Sequence[FrameRef], trial: Trial) -> _Segment:
        raw = self.gather(frames)
        cuts = [
            (
                start,
                rows,
                np.ascontiguousarray(raw[:, start * layout.row_bytes : (start + rows) * layout.row_bytes]),
            )
            for start, rows in _bands(layout, len(frames))
        ]
        digests = [[xxhash.xxh3_64_intdigest(frame.data) for frame in part] for _, _, part in cuts]
        codec = trial.codec
        try:
            bands = [
                (start, rows, encode_band(part, layout, rows, codec, trial.effort))
                for start, rows, part in cuts
            ]
        except CodecError as refusal:
            # The trial saw a sample only; these frames are beyond what the chosen codec takes.
            logger.info("segment coded with zstd", extra={"frames": len(frames), "reason": str(refusal)})
            codec = CodecId.ZSTD
            bands = [
                (start, rows, encode_band(part, layout, rows, codec, trial.effort))
                for start, rows, part in cuts
            ]
        return _Segment(first, len(frames), ON_DISK[codec], bands, np.array(digests, dtype=np.uint64).T)


@dataclass(frozen=True, slots=True)
class _Segment:
    first: int
    count: int
    codec: int
    bands: list[tuple[int, int, bytes]]
    digests: npt.NDArray[np.uint64]


def _bands(layout: PixelLayout, frames: int) -> Iterator[tuple[int, int]]:
    height = band_rows(layout, frames)
    for start in range(0, layout.rows, height):
        yield start, min(height, layout.rows - start)


def _sample_runs(frames: Sequence[FrameRef], layout: PixelLayout) -> list[Sequence[FrameRef]]:
    """A few runs of neighbours, spread over the stack."""
    length = max(1, min(len(frames), _SAMPLE_BYTES // layout.frame_bytes))
    if len(frames) <= length * _SAMPLE_SEGMENTS:
        return [frames[start : start + length] for start in range(0, len(frames), length)]
    step = (len(frames) - length) // (_SAMPLE_SEGMENTS - 1)
    return [frames[at * step : at * step + length] for at in range(_SAMPLE_SEGMENTS)]
