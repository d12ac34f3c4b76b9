"""Measures recovery of an archive from one tier, with and without a snapshot, in interleaved runs.

    python -m benchmarks.recovery [--series 400] [--instances 200] [--runs 3] [--s3] [--json]

Synthetic archive: every series has a header pack of its own, as series that arrive one by one have, with
headers of about 3 KB, UIDs as benchmarks.catalog makes them, and one pixel pack that stands for all.  The
tier is encrypted: a folder, or with --s3 Ceph's gateway on the loopback.  "usable" is when the index is in
its place, "whole" when the header packs are on the local disk, too.  CPU seconds are those of this process.
Requests are calls to the store, one each on S3 but for listings, which are one for each 1,000 objects.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3

from benchmarks.catalog import rows
from dicomfs import recovery
from dicomfs.archive import Archive
from dicomfs.format.header import HeaderPackWriter, InstanceEntry, SeriesPart
from dicomfs.format.pack import PackWriter
from dicomfs.model import HeaderPiece, ObjectKey, PackKind, PatientNode, SeriesNode, StreamPiece, StudyNode
from dicomfs.progress import NullProgress
from dicomfs.tiers.base import Tier
from dicomfs.tiers.metered import MeteredTier
from tests.s3.ceph import running_ceph

BODY = 512 * 512 * 2


class _Placed(NullProgress):
    """Notes when the index is in its place."""

    def __init__(self) -> None:
        self.requests: Callable[[], int] = lambda: 0
        self.at: tuple[float, float, int] | None = None

    def now(self) -> tuple[float, float, int]:
        """Wall clock, CPU, requests."""
        return time.perf_counter(), time.process_time(), self.requests()

    def start(self, total: int | None, what: str) -> None:  # noqa: ARG002  the signature of Progress
        if what == "bringing header packs":
            self.at = self.now()


def header_of(uid: str, number: int, draw: random.Random) -> bytes:
    """Header bytes that look like those of a slice: constant text, a UID, a number, a few that vary."""
    fixed = random.Random(1).randbytes(1200) + b"ORIGINAL\\PRIMARY\\AXIAL" * 70
    varying = f"{draw.uniform(-500, 500):.6f}\\{number}\\{uid}\\{draw.randrange(10**6):06d}".encode()
    return fixed + struct.pack("<HH", 8, 24) + varying


def fill(archive: Archive, series: int, instances: int) -> None:
    """Put packs on the local tier, as packing leaves them."""
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.OPAQUE, archive.archive_id)
    writer.add_chunk(writer.add_stream(11), 0, b"hello dicom")
    body = writer.finish()
    put(archive, body.key, file.getvalue())
    for number in range(1, series + 1):
        draw = random.Random(number)
        entries, headers = [], []
        for row in rows(number, instances):
            header = header_of(row.sop_instance_uid, row.number or 0, draw)
            pieces = (HeaderPiece(len(header)), StreamPiece(body.key, 0, 0, 11))
            digest = hashlib.sha256(header).digest()
            entries.append(
                InstanceEntry(
                    row.position,
                    0,
                    row.number,
                    row.sop_instance_uid,
                    len(header) + 11,
                    row.mtime_ns,
                    digest,
                    row.order,
                    pieces,
                    "",
                )
            )
            headers.append(header)
        name = f"{number:08x}"
        part = SeriesPart(
            PatientNode(number, "H", f"P{number}", "Doe^J", f"P{number} Doe {name}"),
            StudyNode(number, number, f"1.2.{number}", "20240101", "CT", f"20240101 CT {name}"),
            SeriesNode(number, number, f"1.2.{number}.1", "CT", "1", "AXIAL", f"1 AXIAL {name}"),
            0,
            {"series": number + 1},
            entries,
            {body.key: body.index_digest},
        )
        file = io.BytesIO()
        headers_writer = HeaderPackWriter(file, archive.archive_id)
        headers_writer.add_part(part, headers)
        headers_writer.finish()
        put(archive, headers_writer.key, file.getvalue())


def put(archive: Archive, key: ObjectKey, data: bytes) -> None:
    """Place an object on the local tier."""
    archive.tier.put(key, data, hashlib.sha256(data).hexdigest())


@contextlib.contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts calls to tiers that are opened meanwhile."""
    opened: list[MeteredTier] = []
    made = MeteredTier.__init__

    def noted(self: MeteredTier, inner: Tier) -> None:
        made(self, inner)
        opened.append(self)

    MeteredTier.__init__ = noted  # type: ignore[method-assign, assignment]
    try:
        yield lambda: sum(meter.calls for tier in opened for meter in tier.meters().values())
    finally:
        MeteredTier.__init__ = made  # type: ignore[method-assign]


def one_run(root: Path, url: str, key: Path, *, from_packs: bool) -> dict[str, float]:
    """Recover once into a new folder."""
    shutil.rmtree(root / "again", ignore_errors=True)
    placed = _Placed()
    with counted() as placed.requests:
        wall, cpu, _ = placed.now()
        report = recovery.recover(root / "again", url, key, placed, from_packs=from_packs)
        end = placed.now()
        usable = placed.at or end
        assert not report.problems, report.problems[:3]
        assert bool(report.snapshot) is not from_packs
        return {
            "instances": report.instances,
            "usable requests": usable[2],
            "whole requests": end[2],
            "usable s": usable[0] - wall,
            "usable cpu s": usable[1] - cpu,
            "whole s": end[0] - wall,
            "whole cpu s": end[1] - cpu,
        }


def measure(series: int, instances: int, runs: int, *, s3: bool) -> dict[str, Any]:
    """Medians of both ways, and their ratios in the same run."""
    with contextlib.ExitStack() as held:
        root = Path(held.enter_context(tempfile.TemporaryDirectory()))
        if s3:
            ceph = held.enter_context(running_ceph())
            os.environ.update(ceph.environment)
            boto3.client("s3").create_bucket(Bucket="recovery")
            name, url = "external", "s3://recovery/archive"
        else:
            name, url = "laboratory", (root / "laboratory").as_uri()
        key = root / "key"
        with Archive.create(root / "archive", {name: url}, key) as archive:
            fill(archive, series, instances)
        recovery.recover(root / "archive", (root / "archive" / "local").as_uri())
        with Archive.open(root / "archive") as archive:
            tiering = archive.tiering()
            tiering.copy(name, tiering.objects(), NullProgress())
            snapshot = archive.snapshots().make(NullProgress())
        taken: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for number in range(runs):
            for from_packs in (True, False) if number % 2 else (False, True):
                taken[from_packs].append(one_run(root, url, key, from_packs=from_packs))
        document: dict[str, Any] = {
            "series": series,
            "snapshot bytes an instance": round(snapshot.bytes / (series * instances), 1),
        }
        for from_packs, found in taken.items():
            means = {field: round(statistics.median(run[field] for run in found), 2) for field in found[0]}
            document["packs alone" if from_packs else "snapshot"] = means
        document["packs alone / snapshot"] = {
            field: round(
                statistics.median(
                    one[field] / other[field] for one, other in zip(taken[True], taken[False], strict=True)
                ),
                2,
            )
            for field in taken[True][0]
        }
        return document


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=400)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    document = measure(arguments.series, arguments.instances, arguments.runs, s3=arguments.s3)
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    for name, value in document.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
