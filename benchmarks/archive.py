"""Measures what a person feels: how small folders of DICOM files become, and how fast they read back.

    python -m benchmarks.archive FOLDER... [--profile fast|dense|archive] [--runs 3] [--json]

Peers of the same run: for size ``tar | zstd -19 --long=27``, for reading the plain files (page cache dropped)
and, where squashfs-tools and squashfuse are installed, a zstd squashfs image through squashfuse.  Needs root
for mounting and for dropping caches.  Rounds are interleaved; medians are printed, with ratios to the peers.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import zstandard

from benchmarks.tables import print_table
from dicomfs.archive import Archive

_BLOCK = 1 << 20


def files_under(folder: Path) -> list[Path]:
    """All files below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def zstd_bytes(folder: Path) -> int:
    """Bytes of ``tar | zstd -19 --long=27`` of a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=folder.name)
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(buffer.getvalue()))


def read_rate(folder: Path) -> float:
    """MB/s of reading every file below a folder, one after the other."""
    started, total = time.perf_counter(), 0
    for path in files_under(folder):
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                total += len(block)
    return total / 1e6 / (time.perf_counter() - started)


def drop_caches() -> None:
    """Make the next read come from the disk."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")


@contextmanager
def mounted(mount: Sequence[str], unmount: Sequence[str], at: Path) -> Iterator[Path]:
    """A folder that a command mounts and another unmounts."""
    at.mkdir(exist_ok=True)
    subprocess.run([*mount], check=True, stdout=subprocess.DEVNULL)
    try:
        yield at
    finally:
        subprocess.run([*unmount], check=True, stdout=subprocess.DEVNULL)


def sizes(folders: Sequence[Path], work: Path, profile: str) -> list[dict[str, object]]:
    """One row per folder: raw and stored bytes, ratio, time to pack, and what zstd makes of it."""
    rows: list[dict[str, object]] = []
    for number, folder in enumerate(folders):
        with Archive.create(work / f"archive-{number}") as archive:
            archive.import_paths([folder])
            started = time.perf_counter()
            report = archive.pack(profile)
            seconds = time.perf_counter() - started
            stored = archive.status()["stored_bytes"]
        assert isinstance(stored, int)
        peer = zstd_bytes(folder)
        rows.append(
            {
                "folder": folder.name,
                "raw_mb": round(report.raw_bytes / 1e6, 1),
                "ratio": round(report.raw_bytes / stored, 3),
                "zstd_ratio": round(report.raw_bytes / peer, 3),
                "to_zstd": round(stored / peer, 3),
                "pack_mb_s": round(report.raw_bytes / 1e6 / seconds, 1),
                "codecs": " ".join(sorted(report.codecs)),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), file=sys.stderr)
    return rows


def reads(folders: Sequence[Path], work: Path, profile: str, runs: int) -> dict[str, float]:
    """Median MB/s of reading all folders: mounted cold and warm, and the peers."""
    root, plain = work / "archive", work / "plain"
    for number, folder in enumerate(folders):
        shutil.copytree(folder, plain / str(number))
    with Archive.create(root) as archive:
        archive.import_paths(folders)
        archive.pack(profile)
    command = [sys.executable, "-m", "dicomfs", "-a", str(root)]
    at, image = work / "mnt", work / "image.squashfs"
    squash = shutil.which("squashfuse") and shutil.which("mksquashfs")
    if squash:
        make = ["mksquashfs", str(plain), str(image), "-comp", "zstd", "-quiet", "-no-progress"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[float]] = {}

    def measure(name: str, read: Callable[[], float]) -> None:
        found.setdefault(name, []).append(read())

    for _ in range(runs):
        drop_caches()
        with mounted([*command, "mount", str(at)], [*command, "umount", str(at)], at):
            measure("dicomfs cold", lambda: read_rate(at / "patients"))
            measure("dicomfs warm", lambda: read_rate(at / "patients"))
        drop_caches()
        measure("plain cold", lambda: read_rate(plain))
        if squash:
            drop_caches()
            with mounted(["squashfuse", str(image), str(at)], ["fusermount3", "-u", str(at)], at):
                measure("squashfuse zstd cold", lambda: read_rate(at))
    return {name: round(statistics.median(rates), 1) for name, rates in found.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--profile", default="fast", choices=("fast", "dense", "archive"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as name:
        size_rows = sizes(arguments.folders, Path(name), arguments.profile)
        rates = reads(arguments.folders, Path(name), arguments.profile, arguments.runs)
    if arguments.json:
        print(json.dumps({"sizes": size_rows, "reads_mb_s": rates}, indent=2))
        return
    print_table(size_rows)
    reference = rates.get("squashfuse zstd cold", rates["plain cold"])
    for read, rate in rates.items():
        print(f"{read:22} {rate:8.1f} MB/s  {rate / reference:5.2f} of the peer")


if __name__ == "__main__":
    main()
