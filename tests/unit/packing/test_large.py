"""Large things in chunks: imported, packed and served range by range in memory that does not grow with them.

The kernel holds the bound: the process may have `LIMIT` more private writable memory than it begins with, so
that whoever builds a file whole fails.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples
from tests.crash.server import CHECKOUT

LIMIT = 400 << 20
MPEG4 = "1.2.840.10008.1.2.4.102"
ISLANDS = 6
"""Pieces of noise in the sparse files; ranges are compared there and at the ends."""

WORK = """
import resource, sys
from pathlib import Path
from dicomfs.archive import Archive
from dicomfs.codec import own, video, jxl  # all libraries are loaded before the bound counts

root, limit = Path(sys.argv[1]), int(sys.argv[2])
status = Path("/proc/self/status").read_text()
used = next(line for line in status.splitlines() if line.startswith("VmData")).split()[1]
resource.setrlimit(resource.RLIMIT_DATA, ((int(used) << 10) + limit,) * 2)
with Archive.create(root / "archive") as archive:
    assert archive.import_paths([root / "in"]).taken == 1
    report = archive.pack("fast")
    assert report.instances == 1 and not report.failed, report
    [(reader, source)] = [
        (archive.reconstructor.open(row.id), next((root / "in").iterdir()).open("rb"))
        for series in archive.catalog.series_of(1) for row in archive.catalog.rows(series.number)
    ]
    size = source.seek(0, 2)
    assert reader.size == size
    places = [size * k // 6 for k in range(6)] + [(1 << 31) - 5, size - 70_000, size - 3, 0, 130]
    for place in places:
        if 0 <= place < size:
            source.seek(place)
            assert reader.read(place, 200_000) == source.read(200_000), place
    print(report.stored_bytes)
"""


def sparse(path: Path, start: bytes, length: int, end: bytes) -> None:
    """A file of ``length`` bytes between start and end: holes, and islands of noise."""
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(start)
        for island in range(ISLANDS):
            file.seek(len(start) + island * length // ISLANDS)
            file.write(os.urandom(1 << 20))
        file.seek(len(start) + length)
        file.write(end)


def video(path: Path, length: int) -> None:
    """An endoscopy of one fragment."""
    head = samples.identity("Large^Patient", 1, modality="ES") + samples.image(64, 64, bits=8, frames=9)
    start = samples.part10(samples.write(head), MPEG4, instance=samples.uid("large"))
    start += samples.LITTLE.tag(samples.PIXEL_DATA) + b"OB\0\0" + struct.pack("<I", samples.UNDEFINED)
    start += samples.LITTLE.item(b"") + struct.pack("<HHI", 0xFFFE, 0xE000, length)
    sparse(path, start, length, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))


def opaque(path: Path, length: int) -> None:
    """A file that nothing but its first elements can be read of."""
    start = samples.part10(samples.write(samples.identity("Large^Patient")))
    sparse(path, start + b"\xff\xff", length, b"the end")


def groups(path: Path, length: int) -> None:
    """An enhanced object whose functional groups take so many bytes."""
    how, rows = samples.LITTLE, 64
    private = how.sequence(0x0021111A, [how.element(0x00211101 + k, "LO", "v" * 62) for k in range(16)])
    frames = length // (len(private) + 90)
    items = (
        how.sequence(0x00209113, [how.element(0x00200032, "DS", ["0", "0", str(frame)])]) + private
        for frame in range(frames)
    )
    head = samples.identity("Large^Patient", 1, modality="MR", sop_class=samples.ENHANCED_MR)
    data = samples.write(head + samples.image(rows, rows, bits=8, frames=frames))
    data += how.sequence(0x52009230, items, undefined=True, open_items=True)
    data += how.element(samples.PIXEL_DATA, "OB", bytes(range(256)) * (rows * rows * frames // 256))
    path.parent.mkdir(parents=True)
    path.write_bytes(samples.part10(data, samples.EXPLICIT, samples.ENHANCED_MR, samples.uid("large")))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "make, length",
    [(video, (2 << 30) + (64 << 20)), (opaque, 5 << 30), (groups, 24 << 20)],
    ids=["one fragment of 2.1 GB", "5 GB that cannot be read", "24 MB of functional groups"],
)
def test_large_files_pass_through_bounded_memory(make: object, length: int, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "in" / "large.dcm", length)
    command = [sys.executable, "-c", WORK, str(tmp_path), str(LIMIT)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 40 << 20
