"""Memory while packing: bounded by what is under way, however long the series is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dicomfs.archive import Archive
from tests import samples
from tests.archives import write_sources
from tests.crash.server import CHECKOUT

SLICES = 60
SIDE = 512

PACK = """
import sys
from pathlib import Path
from dicomfs import frames
from dicomfs.archive import Archive
from dicomfs.packing import seal

seal._CHECK_CACHE_BYTES = frames._ENCODED_BYTES = 8 << 20
with Archive.open(Path(sys.argv[1])) as archive:
    report = archive.pack("fast")
assert not report.failed, report.failed
status = Path("/proc/self/status").read_text()  # getrusage would tell the peak of our parent
peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
print(report.instances, int(peak) << 10)
"""


def peak_bytes(folder: Path, slices: int) -> int:
    """Resident memory that packing a series of so many slices takes at most."""
    one = samples.ct_series(1, SIDE, SIDE)[0]
    known = samples.uid("Sample^Patient", 0, 1).encode()
    assert known in one
    files = [one.replace(known, known[:-6] + b"%06d" % number) for number in range(slices)]
    write_sources(folder / "in", files)
    with Archive.create(folder / "archive") as archive:
        archive.import_paths([folder / "in"])
    command = [sys.executable, "-c", PACK, str(folder / "archive")]
    packed, peak = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout.split()
    assert int(packed) == slices
    return int(peak)


def test_a_series_four_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    short, long = (peak_bytes(tmp_path / str(times), times * SLICES) for times in (1, 4))
    growth = 3 * SLICES * SIDE * SIDE * 2
    assert long - short < growth // 3
