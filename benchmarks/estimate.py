"""Compares what `dicomfs estimate` expects of folders with what packing them makes.

    python -m benchmarks.estimate FOLDER... [--profile fast|dense|archive] [--json]

Every folder is estimated, then imported and packed in an archive of its own; the last row is all of them in
one archive.  ``sampled`` is the share of the bytes that was coded to find out.  Seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import print_table
from dicomfs.archive import Archive
from dicomfs.codec.base import Profile
from dicomfs.config import Settings
from dicomfs.estimating.estimator import estimate
from dicomfs.progress import NullProgress

_COLUMNS = (
    "folder",
    "raw_mb",
    "expected_bytes",
    "stored_bytes",
    "error_%",
    "sampled_%",
    "estimating_s",
    "expected_s",
    "packing_s",
)


def compare(name: str, folders: Sequence[Path], root: Path, profile: str) -> dict[str, object]:
    """One row."""
    started = time.process_time()
    found = estimate(
        folders,
        Profile[profile.upper()],
        Settings().mount.decoded_cache_bytes // 2,
        NullProgress(),
        threading.Event(),
    )
    estimated = time.process_time()
    with Archive.create(root) as archive:
        archive.import_paths(folders)
        began = time.process_time()
        archive.pack(profile)
        packed_s = time.process_time() - began
        stored = archive.status()["stored_bytes"]
    assert isinstance(stored, int)
    row: dict[str, object] = {
        "folder": name,
        "raw_mb": round(found.raw_bytes / 1e6, 1),
        "expected_bytes": found.stored_bytes,
        "stored_bytes": stored,
        "error_%": round(100 * (found.stored_bytes / stored - 1), 1),
        "sampled_%": round(
            100 * sum(group.sampled_bytes for group in found.groups) / max(1, found.raw_bytes)
        ),
        "estimating_s": round(estimated - started, 1),
        "expected_s": round(sum(group.cpu_s for group in found.groups), 1),
        "packing_s": round(packed_s, 1),
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr, flush=True)
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--profile", default="fast", choices=("fast", "dense", "archive"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as work:
        rows = [
            compare(folder.name, [folder], Path(work) / str(number), options.profile)
            for number, folder in enumerate(options.folders)
        ]
        if len(options.folders) > 1:
            rows.append(compare("all", options.folders, Path(work) / "all", options.profile))
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print_table([{column: row[column] for column in _COLUMNS} for row in rows])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory of the process: {peak} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
