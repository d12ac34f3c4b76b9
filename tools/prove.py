"""Proves that every file that was imported comes back from the mount byte for byte, by SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def files_under(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files at and below the paths; symbolic links are not followed, as in an import."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from files_under(sorted(path.iterdir()))
        elif path.is_file():
            yield path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Compare and print the result; exit code 1 when a file does not come back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imported", type=Path, required=True, help="what `dicomfs import --json` printed")
    parser.add_argument("--mount", type=Path, required=True)
    parser.add_argument("sources", type=Path, nargs="+")
    arguments = parser.parse_args()
    not_taken = {entry["path"] for entry in json.loads(arguments.imported.read_text())["not_taken"]}
    sources = [path for path in files_under(arguments.sources) if str(path) not in not_taken]
    shown = {
        sha256(path) for path in files_under([arguments.mount / "patients", arguments.mount / "versions"])
    }
    lost = [path for path in sources if sha256(path) not in shown]
    for path in lost:
        print(f"does not come back: {path}", file=sys.stderr)
    for name in sorted(not_taken):
        print(f"was not taken, no DICOM instance: {name}")
    print(f"{len(sources) - len(lost)} of {len(sources)} files come back byte for byte")
    return 1 if lost or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
