"""Measures how much sooner a segment is there when two processors decode it than when one does.

    python -m benchmarks.processors FOLDER... [--profile fast|dense|archive] [--rounds 7]

Each folder is packed into an archive of its own.  Then one reader reads every segment of more than one band
from the first frame to the last, as a mount does, decoding and checking included: on one processor and on two
by turns, each time with an empty cache.  Seconds are wall time, the best of all rounds: nothing else should
run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import geometric_mean

from dicomfs.archive import Archive
from dicomfs.codec.base import Profile
from dicomfs.frames import FrameReader, Unit
from dicomfs.model import ObjectKey, PackKind
from dicomfs.packs import PackSource

_CACHE_BYTES = 1 << 30


def segments_of(source: PackSource, packs: Iterable[ObjectKey]) -> Iterator[list[Unit]]:
    """The units of each segment of more than one band, in the order of reading."""
    for pack in packs:
        for number, stack in enumerate(source.pack(pack).stacks):
            for segment in stack.segments:
                bands = range(len(segment.bands))
                frames = range(segment.first_frame, segment.first_frame + segment.frames)
                if len(bands) > 1:
                    yield [Unit(pack, number, frame, band) for frame in frames for band in bands]


def seconds(source: PackSource, units: list[Unit], processors: set[int]) -> float:
    """Wall time of reading the units with these processors, beginning with nothing decoded."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        with contextlib.closing(FrameReader(source, _CACHE_BYTES)) as frames:
            started = time.perf_counter()
            for unit in units:
                frames.fetch(unit)
            return time.perf_counter() - started
    finally:
        os.sched_setaffinity(0, before)


def measured(folder: Path, profile: Profile, rounds: int) -> tuple[int, float, float]:
    """Segments of a folder with several bands, and seconds for all of them on one processor and on two."""
    one, *more = sorted(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as work,
        Archive.create(Path(work) / "archive") as archive,
    ):
        archive.import_paths([folder])
        archive.pack(profile.value)
        source = PackSource(archive.tier)
        found = list(segments_of(source, [key for key, _ in archive.tier.list(PackKind.PIXEL.prefix)]))
        alone = together = 0.0
        for units in found:
            times = [
                (seconds(source, units, {one}), seconds(source, units, {one, more[0]})) for _ in range(rounds)
            ]
            alone += min(first for first, _ in times)
            together += min(second for _, second in times)
    return len(found), alone, together


def main() -> None:
    """Print a row for each folder that has such segments, and the geometric mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--profile", type=Profile, choices=list(Profile), default=Profile.FAST)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    sys.stdout.write(
        "| folder | segments | one processor, s | two, s | times as fast |\n|---|---|---|---|---|\n"
    )
    ratios = []
    for folder in args.folders:
        count, alone, together = measured(folder, args.profile, args.rounds)
        if not count:
            continue
        ratios.append(alone / together)
        sys.stdout.write(f"| {folder.name} | {count} | {alone:.3f} | {together:.3f} | {ratios[-1]:.2f} |\n")
        sys.stdout.flush()
    if ratios:
        mean = geometric_mean(ratios)
        sys.stdout.write(f"\ngeometric mean of {len(ratios)} folders: {mean:.2f}\n")


if __name__ == "__main__":
    main()
