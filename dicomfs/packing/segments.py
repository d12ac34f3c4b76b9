"""Segments of one stack: coded on all threads of a run, written in order, with what the trial found.

Whoever has frames uses it: the packer reads them from spooled files, repack from packs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dicomfs.codec.base import ON_DISK, CodecId
from dicomfs.codec.segment import band_of, encode_segment
from dicomfs.codec.trial import Trial
from dicomfs.format.pack import PackWriter
from dicomfs.format.pack_notes import Decision
from dicomfs.model import PixelLayout
from dicomfs.packing.run import PackRun

Raw = npt.NDArray[np.uint8]
Gather = Callable[[int, int], Raw]
"""(first frame, frames) -> their raw bytes, shape (frames, frame bytes)."""
AS_NAMED, ALONG_SLICES = 0, 1
"""Orders of frames, as stored (docs/format.md, decision)."""
_LEVEL_SHIFT = 8


@dataclass(frozen=True, slots=True)
class _Segment:
    first: int
    count: int
    codec: int
    noted: int
    """Effort and level."""
    bands: list[tuple[int, int, bytes]]
    digests: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class SegmentWriter:
    """Writes the segments of stacks into a pack; ``advance`` is told the raw bytes that were coded."""

    run: PackRun
    writer: PackWriter
    advance: Callable[[int], None]

    def write(self, number: int, layout: PixelLayout, frames: int, trial: Trial, gather: Gather) -> None:
        """Code and write all frames of a stack; at most a few segments are in memory at a time.

        Raises:
            Stopped: somebody asked to stop.
        """
        waiting: deque[Future[_Segment]] = deque()
        try:
            for first in range(0, frames, trial.segment_frames):
                self.run.check()
                count = min(trial.segment_frames, frames - first)
                waiting.append(self.run.pool.submit(_encoded, layout, first, count, trial, gather))
                if len(waiting) > self.run.workers:
                    self._write_one(number, layout, waiting.popleft())
            while waiting:
                self._write_one(number, layout, waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _write_one(self, number: int, layout: PixelLayout, future: Future[_Segment]) -> None:
        done = future.result()
        self.writer.add_segment(
            number, done.first, done.count, done.codec, done.noted, done.bands, done.digests
        )
        self.advance(done.count * layout.frame_bytes)


def _encoded(layout: PixelLayout, first: int, count: int, trial: Trial, gather: Gather) -> _Segment:
    raw = gather(first, count)
    coded = encode_segment(raw, layout, trial.codec, trial.settings)
    bands = [(band.first_row, band.rows, band.payload) for band in coded.bands]
    digests = [
        [xxhash.xxh3_64_intdigest(frame.data) for frame in band_of(raw, layout, first_row, rows)]
        for first_row, rows, _ in bands
    ]
    level = trial.settings.level if coded.codec is trial.codec else 0
    return _Segment(
        first,
        count,
        ON_DISK[coded.codec],
        trial.settings.effort | level << _LEVEL_SHIFT,
        bands,
        np.array(digests, dtype=np.uint64).T,
    )


def level_noted(params: int) -> int:
    """The level that the codec of a segment was used with."""
    return params >> _LEVEL_SHIFT & 0xFF


def effort_noted(params: int) -> int:
    """The effort that the codec of a segment was used with."""
    return params & 0xFF


def decision_of(trial: Trial, order: int, other: Trial | None = None) -> Decision:
    """What is noted of a trial, and of one of the same frames in another order that was not taken."""
    return Decision(
        order,
        tuple((ON_DISK[row.codec], row.settings.level, row.raw_bytes, row.bytes) for row in trial.table),
        trial.settings.references if trial.codec in _REFERRING else (),
        0 if other is None else other.chosen.bytes,
    )


_REFERRING = frozenset({CodecId.FAST, CodecId.DENSE})
