"""Measures how much sooner segments are there when two processors decode them than when one does.

    python -m benchmarks.processors FOLDER... [--profile fast|dense|archive] [--rounds 9]

Each folder is packed into an archive of its own.  Then one reader reads every segment of more than one band,
one after another, from the first frame to the last, as a mount does, decoding and checking included: on one
processor and on two by turns, each time beginning with nothing decoded.  What the machine itself gives is
measured beside it: two readers in processes of their own, each with all of the work and a processor to
itself.  Two processors that share a core, or a clock that falls when both are busy, do less than twice as
much.  Seconds are wall time, the medians of all rounds: nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

from dicomfs.archive import Archive
from dicomfs.codec.base import Profile
from dicomfs.frames import FrameReader, Unit
from dicomfs.model import PackKind
from dicomfs.packs import PackSource

_CACHE_BYTES = 1 << 30
_START_S = 0.05
"""Until when both processes are ready."""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to decode: units in the order of reading."""

    source: PackSource
    units: list[Unit]
    segments: int

    def seconds(self, processors: set[int]) -> float:
        """Wall time of reading all units with these processors, beginning with nothing decoded."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            with contextlib.closing(FrameReader(self.source, _CACHE_BYTES)) as frames:
                started = time.perf_counter()
                for unit in self.units:
                    frames.fetch(unit)
                return time.perf_counter() - started
        finally:
            os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds for the segments of a folder: of one reader, and of one or two in processes of their own."""

    segments: int
    alone: float
    together: float
    one_apart: float
    two_apart: float

    @property
    def faster(self) -> float:
        """How many times as fast two processors are."""
        return self.alone / self.together

    @property
    def given(self) -> float:
        """How many times as much two processors do when they have nothing to do with each other."""
        return 2 * self.one_apart / self.two_apart


def work_of(archive: Archive) -> Work:
    """All segments of an archive that have more than one band."""
    source = PackSource(archive.tier)
    segments = list(_segments(archive, source))
    return Work(source, [unit for units in segments for unit in units], len(segments))


def _segments(archive: Archive, source: PackSource) -> Iterator[list[Unit]]:
    for pack, _ in archive.tier.list(PackKind.PIXEL.prefix):
        for number, stack in enumerate(source.pack(pack).stacks):
            for segment in stack.segments:
                bands = range(len(segment.bands))
                frames = range(segment.first_frame, segment.first_frame + segment.frames)
                if len(bands) > 1:
                    yield [Unit(pack, number, frame, band) for frame in frames for band in bands]


_own: list[Work] = []
"""The work of a process beside this one."""


def _begin(archive: Path) -> None:
    with Archive.open(archive) as opened:
        _own.append(work_of(opened))


def _alone(processor: int, at: float) -> float:
    """Begin at a moment of the monotonic clock; the one when all is read."""
    time.sleep(max(0.0, at - time.monotonic()))
    _own[0].seconds({processor})
    return time.monotonic()


def _apart(pool: ProcessPoolExecutor, processors: list[int]) -> float:
    """Seconds until as many processes have done all of the work, each on its own processor."""
    at = time.monotonic() + _START_S
    return max(pool.map(_alone, processors, [at] * len(processors))) - at


def measured(folder: Path, profile: Profile, rounds: int) -> Measured | None:
    """Measure a folder; None where no segment has several bands."""
    both = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as temporary:
        path = Path(temporary) / "archive"
        with Archive.create(path) as archive:
            archive.import_paths([folder])
            archive.pack(profile.value)
            work = work_of(archive)
            if not work.segments:
                return None
            pool = ProcessPoolExecutor(len(both), multiprocessing.get_context("spawn"), _begin, (path,))
            with pool:
                _apart(pool, both)
                rows = [
                    (
                        work.seconds({both[0]}),
                        work.seconds(set(both)),
                        _apart(pool, both[:1]),
                        _apart(pool, both),
                    )
                    for _ in range(rounds)
                ]
    return Measured(work.segments, *(median(column) for column in zip(*rows, strict=True)))


def main() -> None:
    """Print a row for each folder that has such segments, and the geometric means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--profile", type=Profile, choices=list(Profile), default=Profile.FAST)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("this takes two processors, and there is one")
    sys.stdout.write(
        "| folder | segments | one processor, s | two, s | times as fast | two readers apart |\n"
        "|---|---|---|---|---|---|\n"
    )
    found = []
    for folder in args.folders:
        one = measured(folder, args.profile, args.rounds)
        if one is None:
            continue
        found.append(one)
        sys.stdout.write(
            f"| {folder.name} | {one.segments} | {one.alone:.3f} | {one.together:.3f} | {one.faster:.2f} |"
            f" {one.given:.2f} |\n"
        )
        sys.stdout.flush()
    if found:
        faster, given = (
            geometric_mean(one.faster for one in found),
            geometric_mean(one.given for one in found),
        )
        sys.stdout.write(f"\ngeometric means of {len(found)} folders: {faster:.2f}, {given:.2f}\n")


if __name__ == "__main__":
    main()
