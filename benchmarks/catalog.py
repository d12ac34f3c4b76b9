"""Measures the catalog: bytes per instance, time to build, open, list and look up.

    python -m benchmarks.catalog --series 10000 --instances 1000 [--folder DIR] [--json]

Synthetic archive: every series has one part; three ways of making SOP Instance UIDs in turn (numbered,
time and counter of equal width, 38 random digits as anonymisers make them), sizes equal but for every
sixteenth, mtimes growing by 50 to 250 ms with nanoseconds, random SHA-256, slices accepted in
shuffled order.  The queries run in a process of their own with the index dropped from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dicomfs.index import Catalog, CatalogWriter, PartRow
from dicomfs.instance_names import instance_name
from dicomfs.model import InstanceId, Level, ObjectKey, PatientNode, SeriesNode, StudyNode

SERIES_PER_STUDY = 4
STUDIES_PER_PATIENT = 2
START_NS = 1_600_000_000_000_000_000


def uids(series: int, count: int) -> list[str]:
    """SOP Instance UIDs of a series; reproducible."""
    kind = series % 3
    if kind == 0:
        return [f"1.2.840.113619.2.135.3596.6358736.{5000 + series}.1115807980.{n + 1}" for n in range(count)]
    draw = random.Random(series)
    if kind == 1:
        at = 20240607093000000 + series * 10**6
        steps = [at := at + draw.randrange(100, 900) for _ in range(count)]
        return [f"1.3.12.2.1107.5.2.33.37029.{step}{47520 + n:08d}" for n, step in enumerate(steps)]
    root = f"1.3.6.1.4.1.14519.5.2.1.7695.{4000 + series % 50}."
    return [root + str(draw.randrange(10**37, 10**38)) for _ in range(count)]


def rows(series: int, count: int) -> list[PartRow]:
    """The rows of one series."""
    draw = random.Random(~series)
    orders = list(range(count))
    draw.shuffle(orders)
    digests = draw.randbytes(8 * count)
    at, made = START_NS + series * 10**12, []
    for position, uid in enumerate(uids(series, count)):
        at += draw.randrange(50_000_000, 250_000_000)
        size = 526_336 + (2 * draw.randrange(8) if position % 16 == 0 else 0)
        digest = digests[8 * position : 8 * position + 8]
        made.append(PartRow(position, orders[position] + 1, 0, uid, size, at, digest, orders[position]))
    return made


def add_nodes(writer: CatalogWriter, series: int) -> None:
    """The series with the study and patient it is the first of."""
    study, patient = series // SERIES_PER_STUDY + 1, series // (SERIES_PER_STUDY * STUDIES_PER_PATIENT) + 1
    if series % (SERIES_PER_STUDY * STUDIES_PER_PATIENT) == 0:
        name = f"Family{patient}^Given"
        writer.add_patient(PatientNode(patient, "", f"{patient:08d}", name, f"{patient:08d} {name} 0123abcd"))
    if series % SERIES_PER_STUDY == 0:
        uid = f"1.2.840.113619.2.135.3596.6358736.{study}"
        writer.add_study(
            StudyNode(study, patient, uid, "20240607", "CT CHEST", f"20240607 CT CHEST {study:08x}")
        )
    uid = f"1.2.840.113619.2.135.3596.6358736.1.{series}"
    folder = f"{series % 9} AXIAL 1.25 {series:08x}"
    writer.add_series(SeriesNode(series + 1, study, uid, "CT", str(series % 9), "AXIAL 1.25", folder))


def build(folder: Path, series: int, instances: int) -> dict[str, float]:
    """Writes the archive's index with one synced commit per series."""
    slowest = writing = 0.0
    began = time.monotonic()
    with Catalog.create(folder, b"benchmark-archiv") as catalog:
        for number in range(series):
            made = rows(number, instances)
            start = time.monotonic()
            with catalog.write() as writer:
                add_nodes(writer, number)
                key = ObjectKey(f"header/00/{number:064x}")
                writer.commit_part(number + 1, 0, key, 0, made)
                writer.add_object(key, 50_000, "local", START_NS)
            seconds = time.monotonic() - start
            writing += seconds
            slowest = max(slowest, seconds)
            if sys.stderr.isatty() and number % 100 == 0:
                print(f"\r{number}/{series}", end="", file=sys.stderr)
    size = (folder / "catalog" / "data.mdb").stat().st_size
    return {
        "instances": series * instances,
        "file_bytes": size,
        "bytes_per_instance": round(size / (series * instances), 2),
        "build_seconds": round(time.monotonic() - began, 1),
        "commit_ms_mean": round(1000 * writing / series, 2),
        "commit_ms_max": round(1000 * slowest, 1),
    }


def _drop_cache(folder: Path) -> None:
    file = os.open(folder / "catalog" / "data.mdb", os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def _memory_mib(field: str) -> float:
    """A memory field of this process in MiB: VmRSS counts the mapped index, RssAnon does not."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return round(int(line.split()[1]) / 1024, 1)


def _rate(count: int, began: float) -> int:
    return round(count / (time.monotonic() - began))


def query(folder: Path, series: int, instances: int) -> dict[str, float]:
    """Opens the index cold and asks it."""
    _drop_cache(folder)
    before = _memory_mib("RssAnon")
    found: dict[str, float] = {}
    began = time.monotonic()
    with Catalog.open(folder, readonly=True) as catalog:
        patients = catalog.patients()
        found["open_and_list_patients_ms"] = round(1000 * (time.monotonic() - began), 2)
        found["patients"] = len(patients)
        draw = random.Random(7)
        some = [draw.randrange(series) for _ in range(200)]
        began = time.monotonic()
        listed = sum(len(catalog.rows(number + 1)) for number in some)
        found["rows_per_second_cold"] = _rate(listed, began)
        began = time.monotonic()
        listed = sum(len(catalog.rows(number + 1)) for number in some)
        found["rows_per_second_decoded"] = _rate(listed, began)
        found["list_one_series_ms"] = round(1000 * (time.monotonic() - began) / len(some), 3)
        wanted = [(number, instance_name(draw.randrange(instances) + 1, "", 0)) for number in some * 50]
        began = time.monotonic()
        assert all(catalog.row_named(number + 1, name) for number, name in wanted)
        found["by_name_per_second_decoded"] = _rate(len(wanted), began)
        wanted = [
            (draw.randrange(series), instance_name(draw.randrange(instances) + 1, "", 0)) for _ in range(3000)
        ]
        began = time.monotonic()
        assert all(catalog.row_named(number + 1, name) for number, name in wanted)
        found["by_name_per_second_random"] = _rate(len(wanted), began)
        ids = [InstanceId(draw.randrange(series) + 1, draw.randrange(instances)) for _ in range(3000)]
        asked = [(one, uids(one.series - 1, instances)[one.position]) for one in ids]
        began = time.monotonic()
        assert all(catalog.by_uid(uid) == [one] for one, uid in asked)
        found["by_uid_per_second_random"] = _rate(len(asked), began)
        began = time.monotonic()
        for _ in range(10_000):
            catalog.child(Level.PATIENT, 0, patients[0].folder)
        found["child_per_second"] = _rate(10_000, began)
        began = time.monotonic()
        counts = catalog.counts()
        found["counts_ms"] = round(1000 * (time.monotonic() - began), 3)
        began = time.monotonic()
        assert catalog.recount() == counts
        found["recount_seconds"] = round(time.monotonic() - began, 2)
        assert counts.instances == series * instances
        found["anonymous_mib_before"], found["anonymous_mib"] = before, _memory_mib("RssAnon")
        found["rss_mib"] = _memory_mib("VmRSS")
    return found


def main() -> None:
    """Builds, queries in a fresh process, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="keep the index here")
    parser.add_argument("--query-only", action="store_true", help="the folder holds the index already")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.query_only:
        print(json.dumps(query(args.folder, args.series, args.instances)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "index"
        found = build(folder, args.series, args.instances)
        sizes = ["--series", str(args.series), "--instances", str(args.instances)]
        command = [
            sys.executable,
            "-m",
            "benchmarks.catalog",
            "--folder",
            str(folder),
            "--query-only",
            *sizes,
        ]
        found |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value:>16,}")


if __name__ == "__main__":
    main()
