"""Measures how small codecs make the pixels of DICOM series, and how fast they code and decode.

    python -m benchmarks.codecs FOLDER... [--megabytes 4] [--peers NAME,...] [--csv FILE] [--plot FILE.svg]

A folder holds one series or more; of each at most ``--megabytes`` of neighbouring frames from the middle of
its stacks are taken.  All codecs see the same frames in the same order, in one run, on one processor; speeds
are MB of raw pixels in a second of processor time, encoding once and decoding the fastest of as many times as
fit in half a second, two at least, and everything that was coded is decoded and compared.  ``pack …`` is what
the trial of a profile chooses.

The plot needs matplotlib: ``pip install --group benchmark``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PEERS, REFERENCE, Method, NotTakenHere, Sample, choice_of, own
from dicomfs.archive import Archive
from dicomfs.codec.base import EFFORT_ARCHIVE, EFFORT_DENSE, EFFORT_FAST, CodecId, Profile, Settings
from dicomfs.codec.trial import Trial, choose, repetition, sample_runs
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout
from dicomfs.packing.encode import StackEncoder
from dicomfs.packing.plan import FrameRef, batches, orders, plan_batch
from dicomfs.packing.run import PackRun
from dicomfs.progress import NullProgress

_LEAST_DECODES = 2
_DECODING_S = 0.5
_OWN = (
    ("fast", CodecId.FAST, EFFORT_FAST, 0),
    ("dense", CodecId.DENSE, EFFORT_DENSE, 0),
    ("archive", CodecId.DENSE, EFFORT_ARCHIVE, 1),
)


@dataclass(slots=True)
class Row:
    """What one codec made of one folder."""

    folder: str
    codec: str
    raw_bytes: int = 0
    coded_bytes: int = 0
    encode_s: float = 0.0
    """Seconds of processor time."""
    decode_s: float = 0.0
    note: str = ""

    @property
    def ratio(self) -> float:
        """Raw to coded bytes."""
        return self.raw_bytes / max(1, self.coded_bytes)

    @property
    def encode_mbs(self) -> float:
        """MB of raw pixels coded in a second of processor time."""
        return self.raw_bytes / 1e6 / max(1e-9, self.encode_s)

    @property
    def decode_mbs(self) -> float:
        """The same for decoding."""
        return self.raw_bytes / 1e6 / max(1e-9, self.decode_s)


@dataclass(frozen=True, slots=True)
class Taken:
    """Frames of a stack, and what the trials say of the whole stack."""

    sample: Sample
    trials: dict[Profile, Trial]


def taken_from(folder: Path, most_bytes: int) -> Iterator[Taken]:
    """Samples of the stacks of a folder, the largest stack first, together at most ``most_bytes``."""
    with (
        tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as work,
        Archive.create(Path(work) / "archive") as archive,
        ThreadPoolExecutor(1) as pool,
    ):
        archive.import_paths([folder])
        run = PackRun(pool, 1, Profile.FAST, 1 << 62, NullProgress())
        for group in batches(archive.catalog):
            plan = plan_batch(archive.catalog, archive.spool, group, {})
            encoder = StackEncoder(plan, run)
            stacks = sorted(plan.stacks, key=lambda one: -len(one.frames) * one.layout.frame_bytes)
            for stack in stacks:
                if stack.layout.is_float or stack.layout.bits_allocated not in (8, 16):
                    continue
                count = min(len(stack.frames), most_bytes // stack.layout.frame_bytes)
                if not count:
                    continue
                most_bytes -= count * stack.layout.frame_bytes
                yield _taken(encoder, stack.layout, orders(stack.frames), count)


def _taken(
    encoder: StackEncoder, layout: PixelLayout, candidates: Sequence[list[FrameRef]], count: int
) -> Taken:
    """The middle frames of a stack in the order that the dense trial prefers."""
    best: tuple[list[FrameRef], dict[Profile, Trial]] | None = None
    for place, frames in enumerate(candidates):
        period = repetition([frame.position for frame in frames])
        runs = sample_runs(len(frames), layout, period)
        samples = [encoder.gather([frames[at] for at in run]) for run in runs]
        trials = {
            profile: choose(
                samples,
                layout,
                profile,
                single=len(frames) == 1,
                frames=len(frames),
                period=period,
                reordered=place > 0,
            )
            for profile in Profile
        }
        if best is None or trials[Profile.DENSE].price < best[1][Profile.DENSE].price:
            best = frames, trials
    assert best is not None
    frames, trials = best
    first = (len(frames) - count) // 2
    return Taken(Sample.of(encoder.gather(frames[first : first + count]), layout), trials)


def methods(trials: dict[Profile, Trial], wanted: Sequence[str]) -> Iterator[Method]:
    """All that is compared: peers, our codecs with the references that the trial found, its choices."""
    yield from (peer for peer in PEERS if not wanted or peer.name in wanted or peer.name == REFERENCE)
    for profile, (name, codec, effort, level) in zip(Profile, _OWN, strict=True):
        trial = trials[profile]
        references = next(
            (row.settings.references for row in trial.table if row.codec is CodecId.FAST),
            Settings().references,
        )
        yield own(name, codec, Settings(effort, level, references), trial.segment_frames)
    for profile in Profile:
        yield choice_of(f"pack {profile.value}", trials[profile])


def measure(row: Row, method: Method, sample: Sample) -> None:
    """Add what a method makes of a sample; notes where it cannot."""
    try:
        started = time.process_time()
        coded = method.encode(sample)
        encode_s = time.process_time() - started
        times: list[float] = []
        while len(times) < _LEAST_DECODES or sum(times) < _DECODING_S:
            started = time.process_time()
            found = method.decode(coded, sample)
            times.append(time.process_time() - started)
    except NotTakenHere:
        row.note = "not taken"
        return
    except CodecError as problem:
        row.note = str(problem)
        return
    original: npt.NDArray[np.generic] = sample.raw if found.shape == sample.raw.shape else sample.planes
    if not np.array_equal(found, original):
        row.note = "NOT LOSSLESS"
    row.raw_bytes += sample.raw.size
    row.coded_bytes += sum(map(len, coded))
    row.encode_s += encode_s
    row.decode_s += min(times)


def measured(folder: Path, most_bytes: int, wanted: Sequence[str]) -> list[Row]:
    """One row for each codec."""
    rows: dict[str, Row] = {}
    for taken in taken_from(folder, most_bytes):
        for method in methods(taken.trials, wanted):
            row = rows.setdefault(method.name, Row(folder.name, method.name))
            measure(row, method, taken.sample)
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class Mean:
    """Geometric means of a codec over all folders that it took."""

    codec: str
    folders: int
    ratio: float
    to_reference: float
    """Its bytes to those of the reference, on these folders."""
    encode_mbs: float
    decode_mbs: float


def means(rows: Sequence[Row]) -> list[Mean]:
    """Means by codec, the smallest first."""
    reference = {row.folder: row for row in rows if row.codec == REFERENCE}
    by_codec: dict[str, list[Row]] = {}
    for row in rows:
        if not row.note and row.coded_bytes:
            by_codec.setdefault(row.codec, []).append(row)
    found = [
        Mean(
            name,
            len(some),
            geometric_mean([row.ratio for row in some]),
            geometric_mean([reference[row.folder].ratio / row.ratio for row in some]),
            geometric_mean([row.encode_mbs for row in some]),
            geometric_mean([row.decode_mbs for row in some]),
        )
        for name, some in by_codec.items()
    ]
    return sorted(found, key=lambda mean: mean.to_reference)


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """The means, then bytes to the reference by folder, as Markdown."""
    found = means(rows)
    yield f"| codec | folders | ratio | to {REFERENCE} | encode MB/s | decode MB/s |"
    yield "|---|---|---|---|---|---|"
    for mean in found:
        yield (
            f"| {mean.codec} | {mean.folders} | {mean.ratio:.3f} | {mean.to_reference:.3f}"
            f" | {mean.encode_mbs:.1f} | {mean.decode_mbs:.1f} |"
        )
    names = [mean.codec for mean in found]
    ratios = {(row.folder, row.codec): row.ratio for row in rows if row.coded_bytes and not row.note}
    yield ""
    yield "| folder | MB | ratio of " + REFERENCE + " | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 3) + "|"
    for folder in dict.fromkeys(row.folder for row in rows):
        base = ratios.get((folder, REFERENCE), math.nan)
        size = max(row.raw_bytes for row in rows if row.folder == folder) / 1e6
        cells = [f"{base / ratios[folder, name]:.3f}" if (folder, name) in ratios else "" for name in names]
        yield f"| {folder} | {size:.1f} | {base:.3f} | " + " | ".join(cells) + " |"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All rows with their derived columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        fields = [field.name for field in dataclasses.fields(Row)]
        writer.writerow([*fields, "ratio", "encode_mbs", "decode_mbs"])
        for row in rows:
            derived = [f"{value:.4f}" for value in (row.ratio, row.encode_mbs, row.decode_mbs)]
            writer.writerow([*(getattr(row, name) for name in fields), *derived])


def main() -> None:
    """Measure, print the tables, write files where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of each folder at most (4)")
    parser.add_argument("--peers", default="", help="names of peers to compare with, by commas (all)")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="ratio against decoding speed, as SVG or PNG"
    )
    arguments = parser.parse_args()
    wanted = [name for name in arguments.peers.split(",") if name]
    rows: list[Row] = []
    for folder in arguments.folders:
        print(folder.name, file=sys.stderr)
        rows += measured(folder, int(arguments.megabytes * 1e6), wanted)
    print("\n".join(tables(rows)))
    for row in rows:
        if row.note and row.note != "not taken":
            print(f"{row.folder}: {row.codec}: {row.note}", file=sys.stderr)
    if arguments.csv:
        write_csv(arguments.csv, rows)
    if arguments.plot:
        from benchmarks.plot import draw  # noqa: PLC0415 - matplotlib is needed for the plot only

        draw(arguments.plot, means(rows))


if __name__ == "__main__":
    main()
