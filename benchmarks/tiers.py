"""Measures what an object store is asked for: requests, bytes and time, for one slice and for whole series.

    python -m benchmarks.tiers s3://BUCKET/PREFIX FOLDER... [--runs 3] [--json]

Each folder becomes an archive of its own whose packs lie on the store alone, encrypted; credentials and
endpoint are those of the AWS environment.  Peers of the same run: the same files as one object each, read one
after the other with plain boto3, and the same archive with its packs on the local disk.  Rounds are
interleaved, medians are printed.  Objects below the prefix stay: delete them when done.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import boto3

from benchmarks.archive import drop_caches, files_under
from benchmarks.tables import print_table
from dicomfs.archive import Archive
from dicomfs.model import InstanceId, PackKind
from dicomfs.progress import NullProgress

EXTERNAL = "external"
_STEP = 1 << 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a prefix that nothing else uses")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = []
    for folder in options.folders:
        with tempfile.TemporaryDirectory(prefix="dicomfs-benchmark-") as work:
            url = f"{options.url.rstrip('/')}/{secrets.token_hex(6)}"
            rows.append(measure(url, folder, Path(work), options.runs))
            if not options.json:
                print(json.dumps(rows[-1]), file=sys.stderr)
    if options.json:
        json.dump(rows, sys.stdout, indent=2)
    else:
        print_table(rows)


def measure(url: str, folder: Path, work: Path, runs: int) -> dict[str, object]:
    """One row: what lies on the store, what a slice and what the whole folder costs, beside the peers."""
    files = files_under(folder)
    root = work / "archive"
    Archive.create(root, {EXTERNAL: f"{url}/packs"}, work / "key").close()
    with Archive.open(root) as archive:
        archive.import_paths([folder])
        archive.pack()
        instances = _instances(archive)
        tiering = archive.tiering()
        tiering.copy(EXTERNAL, tiering.objects(), NullProgress())
        stored = tiering.status()[EXTERNAL]
    single = _put_singly(url, files)
    near = _rates(root, instances, runs)
    with Archive.open(root) as archive:
        tiering = archive.tiering()
        frames = [one for one in tiering.objects() if not one.key.startswith(PackKind.HEADER.prefix)]
        tiering.evict("local", frames, NullProgress())
    first = [_asked(root, instances[len(instances) // 2 : len(instances) // 2 + 1]) for _ in range(runs)]
    whole, singly = [], []
    for _ in range(runs):
        whole.append(_asked(root, instances))
        singly.append(_timed(lambda: [_get(single, key) for key in single.keys]))
    with Archive.open(root) as archive:
        tiering = archive.tiering()
        tiering.evict("local", tiering.objects(), NullProgress())
    bare = [_asked(root, instances[len(instances) // 2 : len(instances) // 2 + 1]) for _ in range(runs)]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    seconds = statistics.median(one.seconds for one in whole)
    return {
        "folder": folder.name,
        "instances": len(instances),
        "raw_mb": round(megabytes, 1),
        "objects": stored["objects"],
        "stored_b_per_instance": stored["bytes"] // max(1, len(instances)),
        "slice_requests": first[0].requests,
        "slice_kb": round(first[0].bytes / 1e3),
        "slice_ms": round(1e3 * statistics.median(one.seconds for one in first)),
        "bare_requests": bare[0].requests,
        "bare_kb": round(bare[0].bytes / 1e3),
        "whole_requests": whole[0].requests,
        "whole_mb": round(whole[0].bytes / 1e6, 1),
        "whole_s": round(seconds, 2),
        "single_requests": len(single.keys),
        "single_s": round(statistics.median(singly), 2),
        "single_to_whole": round(statistics.median(singly) / seconds, 2),
        "store_to_local": round(statistics.median(near) / seconds, 3),
    }


class Asked:
    """What reading cost."""

    def __init__(self, requests: int, read: int, seconds: float) -> None:
        self.requests, self.bytes, self.seconds = requests, read, seconds


class Singly:
    """Files as one object each."""

    def __init__(self, bucket: str) -> None:
        self.client = boto3.client("s3")
        self.bucket = bucket
        self.keys: list[str] = []


def _put_singly(url: str, files: Sequence[Path]) -> Singly:
    parts = urlsplit(url)
    found = Singly(parts.netloc)
    for number, path in enumerate(files):
        key = f"{parts.path.strip('/')}/single/{number:06d}"
        found.client.put_object(Bucket=found.bucket, Key=key, Body=path.read_bytes())
        found.keys.append(key)
    return found


def _get(single: Singly, key: str) -> bytes:
    data: bytes = single.client.get_object(Bucket=single.bucket, Key=key)["Body"].read()
    return data


def _instances(archive: Archive) -> list[InstanceId]:
    catalog = archive.catalog
    return [
        row.id
        for patient in catalog.patients()
        for study in catalog.studies(patient.number)
        for series in catalog.series_of(study.number)
        for row in catalog.rows(series.number)
    ]


def _asked(root: Path, instances: Sequence[InstanceId]) -> Asked:
    """Read instances in a process that has read nothing before, as far as the archive goes."""
    drop_caches()
    with Archive.open(root) as archive:
        opened = archive.tiers.opened(EXTERNAL)
        assert opened.meter is not None
        seconds = _timed(lambda: _read(archive, instances))
        meters = opened.meter.meters().values()
    return Asked(sum(meter.calls for meter in meters), sum(meter.payload_bytes for meter in meters), seconds)


def _rates(root: Path, instances: Sequence[InstanceId], runs: int) -> list[float]:
    seconds = []
    for _ in range(runs):
        drop_caches()
        with Archive.open(root) as archive:
            seconds.append(_timed(lambda archive=archive: _read(archive, instances)))  # type: ignore[misc]
    return seconds


def _read(archive: Archive, instances: Sequence[InstanceId]) -> None:
    for instance in instances:
        reader = archive.reconstructor.open(instance)
        for offset in range(0, reader.size, _STEP):
            reader.read(offset, _STEP)
        reader.close()


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
