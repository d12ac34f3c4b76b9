"""Measures how much sooner segments are there when two processors decode them than when one does.

    python -m benchmarks.processors FOLDER... [--profile fast|dense|archive] [--rounds 9]

Each folder is packed into an archive of its own, of which the segments of more than one band are decoded,
one after another, on one processor and on two by turns:

- by the codec alone: payloads in memory, the bands of a segment by a thread on each processor, digests
  compared;
- by one reader, frame after frame as a mount reads: finding, reading, handing on and beginning threads
  included, each time with nothing decoded before.

What the machine itself gives is measured beside it: two readers in processes of their own, each with all of
the work and a processor to itself.  Two processors that share a core, or a clock that falls when both are
busy, do less than twice as much.  Seconds are wall time, the medians of all rounds: nothing else should run
meanwhile.
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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

import xxhash

from dicomfs.archive import Archive
from dicomfs.codec.base import CodecId, Profile
from dicomfs.codec.segment import decode_frames
from dicomfs.frames import FrameReader, Unit, codec_of
from dicomfs.model import PackKind, PixelLayout
from dicomfs.packs import PackSource

_CACHE_BYTES = 1 << 30
_START_S = 0.05
"""Until when both processes are ready."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band of all frames of a segment."""

    payload: bytes
    layout: PixelLayout
    rows: int
    codec: CodecId
    digests: list[int]
    """Of each frame."""

    def decode(self) -> None:
        """Decode all frames and compare them."""
        found = decode_frames(self.payload, self.layout, self.rows, len(self.digests), self.codec)
        for (_, raw), digest in zip(found, self.digests, strict=True):
            if xxhash.xxh3_64_intdigest(raw) != digest:
                raise SystemExit("a band decodes to other bytes than were packed")


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to decode: units in the order of reading, and the bands of each segment."""

    source: PackSource
    units: list[Unit]
    segments: list[list[Band]]

    def seconds(self, processors: set[int]) -> float:
        """Wall time of reading all units with these processors, beginning with nothing decoded."""
        with _on(processors), contextlib.closing(FrameReader(self.source, _CACHE_BYTES)) as frames:
            started = time.perf_counter()
            for unit in self.units:
                frames.fetch(unit)
            return time.perf_counter() - started

    def codec_seconds(self, processors: set[int]) -> float:
        """Wall time of decoding all segments by a thread on each processor: this one and those that wait."""
        here, *others = sorted(processors)
        with contextlib.ExitStack() as threads:
            threads.enter_context(_on({here}))
            pools = [threads.enter_context(_thread_on(other)) for other in others]
            started = time.perf_counter()
            for bands in self.segments:
                shares = [bands[number :: len(processors)] for number in range(len(processors))]
                waiting = [pool.submit(_decode, share) for pool, share in zip(pools, shares[1:], strict=True)]
                _decode(shares[0])
                for done in waiting:
                    done.result()
            return time.perf_counter() - started


def _decode(bands: list[Band]) -> None:
    for band in bands:
        band.decode()


def _thread_on(processor: int) -> ThreadPoolExecutor:
    """A thread that stays on a processor and has begun already."""
    pool = ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {processor}))
    pool.submit(int).result()
    return pool


@contextlib.contextmanager
def _on(processors: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds for the segments of a folder: of the codec, of one reader, and of one or two in processes."""

    segments: int
    codec_alone: float
    codec_together: float
    alone: float
    together: float
    one_apart: float
    two_apart: float

    @property
    def codec_faster(self) -> float:
        """How many times as fast two processors decode."""
        return self.codec_alone / self.codec_together

    @property
    def faster(self) -> float:
        """How many times as fast two processors serve one reader."""
        return self.alone / self.together

    @property
    def given(self) -> float:
        """How many times as much two processors do when they have nothing to do with each other."""
        return 2 * self.one_apart / self.two_apart


def work_of(archive: Archive) -> Work:
    """All segments of an archive that have more than one band."""
    work = Work(PackSource(archive.tier), [], [])
    for pack, _ in archive.tier.list(PackKind.PIXEL.prefix):
        reader = work.source.pack(pack)
        for number, stack in enumerate(reader.stacks):
            for segment in (segment for segment in stack.segments if len(segment.bands) > 1):
                frames = range(segment.first_frame, segment.first_frame + segment.frames)
                bands = range(len(segment.bands))
                work.units.extend(Unit(pack, number, frame, band) for frame in frames for band in bands)
                payloads = reader.read_segment(segment)
                work.segments.append(
                    [
                        Band(payload, stack.layout, band.rows, codec_of(pack, segment), digests.tolist())
                        for payload, band, digests in zip(
                            payloads, segment.bands, segment.digests.T, strict=True
                        )
                    ]
                )
    return work


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
                        work.codec_seconds({both[0]}),
                        work.codec_seconds(set(both)),
                        work.seconds({both[0]}),
                        work.seconds(set(both)),
                        _apart(pool, both[:1]),
                        _apart(pool, both),
                    )
                    for _ in range(rounds)
                ]
    return Measured(len(work.segments), *(median(column) for column in zip(*rows, strict=True)))


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
        "| folder | segments | codec: one processor, s | two, s | times as fast"
        " | reader: one, s | two, s | times as fast | two readers apart |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    found = []
    for folder in args.folders:
        one = measured(folder, args.profile, args.rounds)
        if one is None:
            continue
        found.append(one)
        sys.stdout.write(
            f"| {folder.name} | {one.segments} | {one.codec_alone:.3f} | {one.codec_together:.3f} |"
            f" {one.codec_faster:.2f} | {one.alone:.3f} | {one.together:.3f} | {one.faster:.2f} |"
            f" {one.given:.2f} |\n"
        )
        sys.stdout.flush()
    if found:
        means = (
            geometric_mean(values)
            for values in zip(*((one.codec_faster, one.faster, one.given) for one in found), strict=True)
        )
        shown = ", ".join(f"{mean:.2f}" for mean in means)
        sys.stdout.write(f"\ngeometric means of {len(found)} folders: {shown}\n")


if __name__ == "__main__":
    main()
