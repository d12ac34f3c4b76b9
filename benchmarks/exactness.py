"""Proves that every file comes back, and tells by transfer syntax how it is stored.

    python -m benchmarks.exactness PATH... [--profile fast|dense|archive] [--json]

The instances below PATH are sorted by Transfer Syntax UID; those of each are imported and packed in an
archive of their own, read back, and compared with their sources by SHA-256; equal files count once.
``split`` files are stored as frames or by frames that make their codestreams, ``transcoded`` ones as other
codestreams, ``headers`` are files without pixels, ``opaque`` all others.  ``ratio`` is bytes of the files to
all bytes stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicomfs.archive import Archive
from dicomfs.dicom.part10 import scan, sop_instance_uid
from dicomfs.model import CodedPiece, FramePiece, HeaderPiece, InstanceId, Piece, TranscodedPiece
from dicomfs.packs import PackSource

_KINDS = ("split", "transcoded", "headers", "opaque")


@dataclass
class Row:
    """One transfer syntax."""

    syntax: str
    files: int = 0
    exact: int = 0
    raw: int = 0
    stored: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def by_syntax(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Instances below some folders by transfer syntax."""
    found: dict[str, list[Path]] = {}
    files = (file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*"))))
    for file in files:
        if not file.is_file():
            continue
        data = file.read_bytes()
        looked = scan(data)
        if sop_instance_uid(looked):
            found.setdefault(looked.syntax.uid or "none", []).append(file)
    return found


def kind_of(pieces: Sequence[Piece]) -> str:
    """How a file is stored."""
    kinds = {type(piece) for piece in pieces}
    if kinds & {FramePiece, CodedPiece}:
        return "split"
    if TranscodedPiece in kinds:
        return "transcoded"
    return "headers" if kinds <= {HeaderPiece} else "opaque"


def prove(syntax: str, files: Sequence[Path], work: Path, profile: str) -> Row:
    """Pack the files of one syntax and compare each with its source."""
    row = Row(syntax)
    links = work / "in"
    links.mkdir(parents=True)
    for number, file in enumerate(files):
        (links / f"{number:06d}").symlink_to(file.absolute())
    waiting = {hashlib.sha256(file.read_bytes()).digest() for file in files}
    with Archive.create(work / "archive") as archive:
        archive.import_paths([links])
        report = archive.pack(profile)
        if report.failed:
            raise SystemExit(f"{syntax}: not packed: {report.failed}")
        source = PackSource(archive.tier)
        for series in _series(archive):
            for instance in archive.catalog.rows(series):
                row.kinds[kind_of(_pieces(archive, source, instance.id))] += 1
                reader = archive.reconstructor.open(instance.id)
                data = reader.read(0, reader.size)
                row.files += 1
                row.exact += hashlib.sha256(data).digest() in waiting
                row.raw += len(data)
        stored = archive.status()["stored_bytes"]
        assert isinstance(stored, int)
        row.stored = stored
    if row.exact != row.files or row.files != len(waiting):
        raise SystemExit(f"{syntax}: {row.exact} of {len(waiting)} files come back")
    print(f"{syntax}: {row.files} files, {row.raw / max(1, row.stored):.3f}", file=sys.stderr, flush=True)
    return row


def _series(archive: Archive) -> set[int]:
    catalog = archive.catalog
    return {
        series.number
        for patient in catalog.patients()
        for study in catalog.studies(patient.number)
        for series in catalog.series_of(study.number)
    }


def _pieces(archive: Archive, source: PackSource, instance: InstanceId) -> Sequence[Piece]:
    place = archive.catalog.part_of(instance)
    return source.part(place.header_key, place.part_index).entries[place.row].pieces


def report(rows: Sequence[Row]) -> str:
    """A Markdown table, with a line for all."""
    whole = Row("all")
    for row in rows:
        whole.files, whole.exact = whole.files + row.files, whole.exact + row.exact
        whole.raw, whole.stored = whole.raw + row.raw, whole.stored + row.stored
        whole.kinds += row.kinds
    lines = [f"| transfer syntax | files | exact | {' | '.join(_KINDS)} | MB | ratio |", "|---" * 9 + "|"]
    for row in [*rows, whole]:
        kinds = " | ".join(str(row.kinds[kind]) for kind in _KINDS)
        ratio = row.raw / max(1, row.stored)
        lines.append(
            f"| {row.syntax} | {row.files} | {row.exact} | {kinds} | {row.raw / 1e6:.2f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; exit code 1 when a file does not come back."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--profile", default="fast", choices=("fast", "dense", "archive"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="dicomfs-bench-") as work:
        for syntax, files in sorted(by_syntax(options.paths).items()):
            rows.append(prove(syntax, files, Path(work) / syntax, options.profile))
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else report(rows))


if __name__ == "__main__":
    main()
