"""Measures writing files into `incoming/` of a mount, beside the same disk's own file system.

    python -m benchmarks.writing [--files 200] [--size 524288] [--rounds 5] [--work FOLDER] [--json]

Files of `--size` bytes are written one after the other and closed, with and without fsync, in interleaved
rounds of three kinds: plain files on the file system beneath the archive; files that are no DICOM, into
`incoming/`; whole DICOM files into `incoming/`, of which close returns once the instance is accepted and
durable.  Then with four writers at once.  Ratios are medians of the rounds' own ratios to the plain files of
the same round.  CPU is that of the process that serves the mount.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.scp import cpu_seconds
from benchmarks.tables import print_table
from dicomfs.archive import Archive

WRITERS = 4
KINDS = ("plain", "incoming, other", "incoming, DICOM")


def dicom_files(count: int, size: int) -> list[bytes]:
    """Whole CT slices of about `size` bytes, of one new series, with noise as pixels."""
    rng = np.random.default_rng(size)
    columns = 512
    rows = max(1, size // (2 * columns))
    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.PatientID = data.PatientName = "Benchmark"
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    meta = data.file_meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    files = []
    for number in range(count):
        data.SOPInstanceUID, data.InstanceNumber = generate_uid(), number + 1
        data.PixelData = rng.bytes(2 * rows * columns)
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


@contextlib.contextmanager
def mounted(work: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A new archive's mount point and the process that serves it."""
    Archive.create(work / "archive").close()
    settings = "[archive]\nminimum_free_bytes = 0\n[pack]\nbackground = false\n"
    (work / "archive" / "dicomfs.toml").write_text(settings)
    (work / "mount").mkdir()
    command = [sys.executable, "-m", "dicomfs", "-a", str(work / "archive"), "mount", "--foreground"]
    process = subprocess.Popen([*command, str(work / "mount")])
    try:
        while not (work / "mount").is_mount():
            assert process.poll() is None, "the mount ended"
            time.sleep(0.05)
        yield work / "mount", process
    finally:
        subprocess.run(["fusermount3", "-u", str(work / "mount")], check=True)
        process.wait()


def write(folder: Path, files: Sequence[bytes], *, sync: bool, writers: int) -> float:
    """Seconds to write files into a new folder."""
    folder.mkdir()

    def one(job: tuple[int, bytes]) -> None:
        descriptor = os.open(folder / f"{job[0]}.dcm", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        view = memoryview(job[1])
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
        os.close(descriptor)

    started = time.perf_counter()
    if writers == 1:
        for job in enumerate(files):
            one(job)
    else:
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(one, enumerate(files)))
    return time.perf_counter() - started


def measure(count: int, size: int, rounds: int, scratch: Path) -> list[dict[str, object]]:
    """A row for each way of writing."""
    seconds: dict[tuple[bool, int, str], list[float]] = {}
    used: dict[tuple[bool, int, str], list[float]] = {}
    plain, series = scratch / "plain", 0
    plain.mkdir()
    with mounted(scratch) as (mountpoint, process):
        for _ in range(rounds):
            for sync in (False, True):
                for writers in (1, WRITERS):
                    for kind in KINDS:
                        series += 1
                        files = dicom_files(count, size)
                        if kind == "incoming, other":
                            files = [bytes(132) + data[132:] for data in files]
                        top = plain if kind == "plain" else mountpoint / "incoming"
                        before = cpu_seconds(process)
                        spent = write(top / str(series), files, sync=sync, writers=writers)
                        seconds.setdefault((sync, writers, kind), []).append(spent)
                        used.setdefault((sync, writers, kind), []).append(cpu_seconds(process) - before)
                        # What was written and not synced is not to burden the next round.
                        os.sync()
            shutil.rmtree(plain)
            plain.mkdir()
    return [
        {
            "fsync": "yes" if sync else "no",
            "writers": writers,
            "written": kind,
            "files_s": round(count / statistics.median(found), 1),
            "mb_s": round(count * size / 1e6 / statistics.median(found), 1),
            "to_plain": round(
                statistics.median(
                    one / mine for one, mine in zip(seconds[sync, writers, "plain"], found, strict=True)
                ),
                3,
            ),
            "cpu_ms_each": round(statistics.median(used[sync, writers, kind]) / count * 1e3, 2),
        }
        for (sync, writers, kind), found in sorted(seconds.items())
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--size", type=int, default=512 << 10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        rows = measure(options.files, options.size, options.rounds, Path(scratch))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print_table(rows)


if __name__ == "__main__":
    main()
