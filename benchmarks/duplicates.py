"""Measures what copies cost: a series, its pixels under another patient, a third time, and files re-sent.

    python -m benchmarks.duplicates FOLDER... [--profile fast|dense|archive]

Each folder is imported and packed; then with other names, patient IDs and UIDs, written anew by pydicom; then
so once more; then the first files are sent again.  What each step adds to the stored bytes is printed, of
pixels and of headers; `verify --deep` has to be clean in the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from dicomfs.archive import Archive

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_COLUMNS = (
    "folder",
    "instances",
    "raw MB",
    "first: pixels",
    "headers",
    "another patient: pixels",
    "headers",
    "a third: pixels",
    "headers",
    "re-sent",
)


def reheadered(folder: Path, target: Path, patient: str) -> Path:
    """A copy of a series under another patient: other names, other UIDs, the same pixels."""
    target.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        data_set = pydicom.dcmread(path)
        data_set.PatientName, data_set.PatientID = f"{patient}^Copy", f"ID-{patient}"
        for keyword in _UIDS:
            if keyword in data_set:
                setattr(data_set, keyword, generate_uid(entropy_srcs=[patient, str(data_set[keyword].value)]))
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.save_as(target / f"{number:05d}")
    return target


def sizes(archive: Archive) -> tuple[int, int]:
    """Bytes stored of frames and streams, and of headers and journal."""
    status = archive.status()
    pixels, opaque, stored = (status[name] for name in ("pixel_bytes", "opaque_bytes", "stored_bytes"))
    assert isinstance(pixels, int)
    assert isinstance(opaque, int)
    assert isinstance(stored, int)
    return pixels + opaque, stored - pixels - opaque


def measure(folder: Path, work: Path, profile: str) -> Sequence[object]:
    """One row."""
    steps = [folder, *(reheadered(folder, work / name, name) for name in ("second", "third")), folder]
    added: list[tuple[int, int]] = []
    with Archive.create(work / "archive") as archive:
        before = sizes(archive)
        for step in steps:
            archive.import_paths([step])
            archive.pack(profile)
            now = sizes(archive)
            added.append((now[0] - before[0], now[1] - before[1]))
            before = now
        problems = archive.verify(deep=True).problems
        if problems:
            raise SystemExit(f"{folder}: {problems}")
    raw = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    count = sum(path.is_file() for path in folder.rglob("*"))
    return [
        folder.name,
        count,
        round(raw / 1e6, 1),
        *(size for step in added[:3] for size in step),
        sum(added[3]),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--profile", default="fast", choices=("fast", "dense", "archive"))
    options = parser.parse_args()
    print(f"| {' | '.join(_COLUMNS)} |")
    print("|---" * len(_COLUMNS) + "|")
    for folder in options.folders:
        with tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as work:
            row = measure(folder, Path(work), options.profile)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        print(folder.name, file=sys.stderr)


if __name__ == "__main__":
    main()
