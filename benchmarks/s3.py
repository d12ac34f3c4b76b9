"""Measures a tier on a real S3 server, Ceph's gateway on the loopback, beside boto3 used plainly.

    python -m benchmarks.s3 [--runs 5] [--json]

The same random bytes go out and come back both ways, in interleaved rounds; medians are printed, and time and
CPU of this process against those of plain boto3 in the same round.  A put of ours reads back and compares all
that it sent; beside `upload_file` alone stands "proven": `upload_file`, `download_fileobj` and a SHA-256 of
what came, which prove as much.  Requests are those that a store bills.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3

from benchmarks.tables import print_table
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.s3 import S3Tier
from tests.s3.ceph import running_ceph

BUCKET = "benchmark"
SIZES = {"64 KiB": (64 << 10, 50), "4 MiB": (4 << 20, 8), "64 MiB": (64 << 20, 1)}
"""By name: bytes of an object, and how many of them."""
RANGE_BYTES = 256 << 10
"""About a segment of a pack."""


@dataclass
class Task:
    """Something done both ways."""

    name: str
    moved: int
    ways: dict[str, Callable[[], None]]


class _Hashing:
    """A file that keeps the digest of what is written to it in order."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


class Benchmark:
    """The tasks; each round works below prefixes of its own."""

    def __init__(self, folder: Path) -> None:
        self._client = boto3.client("s3")
        self._client.create_bucket(Bucket=BUCKET)
        self._requests: Counter[str] = Counter()
        self._client.meta.events.register("before-send.s3", self._count)
        self._round = 0
        self._sources: dict[str, list[tuple[Path, str]]] = {}
        for name, (size, count) in SIZES.items():
            self._sources[name] = []
            for number in range(count):
                path = folder / f"{size}-{number}"
                path.write_bytes(os.urandom(size))
                self._sources[name].append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
        self.tier = S3Tier("external", BUCKET, "ours")

    def requests(self) -> int:
        """Sent so far, both ways."""
        return self._requests.total() + sum(self.tier.requests().values())

    def tasks(self) -> list[Task]:
        """What one round does, in order: what was put is read."""
        self._round += 1
        tasks = [self._puts(name) for name in SIZES]
        tasks += [self._gets("4 MiB"), self._ranges("64 MiB"), self._listing()]
        return tasks

    def _count(self, event_name: str, **_: object) -> None:
        self._requests[event_name] += 1

    def _key(self, name: str, number: int) -> str:
        return f"{self._round}/{name.lower().replace(' ', '-')}/{number}"

    def _puts(self, name: str) -> Task:
        sources = self._sources[name]

        def ours() -> None:
            for number, (path, sha256) in enumerate(sources):
                self.tier.put(ObjectKey(self._key(name, number)), path, sha256)

        def plain(folder: str) -> None:
            for number, (path, _) in enumerate(sources):
                self._client.upload_file(str(path), BUCKET, f"{folder}/{self._key(name, number)}")

        def proven() -> None:
            plain("proven")
            for number, (_, sha256) in enumerate(sources):
                back = _Hashing()
                extra = boto3.s3.transfer.TransferConfig(use_threads=False)
                key = f"proven/{self._key(name, number)}"
                self._client.download_fileobj(BUCKET, key, cast(BinaryIO, back), Config=extra)
                assert back.digest.hexdigest() == sha256

        ways = {"dicomfs": ours, "boto3": lambda: plain("plain"), "boto3, proven": proven}
        return Task(f"put {len(sources)} × {name}", sum(path.stat().st_size for path, _ in sources), ways)

    def _gets(self, name: str) -> Task:
        count, size = SIZES[name][1], SIZES[name][0]

        def ours() -> None:
            for number in range(count):
                self.tier.get(ObjectKey(self._key(name, number)))

        def plain() -> None:
            for number in range(count):
                self._client.get_object(Bucket=BUCKET, Key=f"plain/{self._key(name, number)}")["Body"].read()

        return Task(f"get {count} × {name}", count * size, {"dicomfs": ours, "boto3": plain})

    def _ranges(self, name: str) -> Task:
        offsets = range(0, SIZES[name][0], RANGE_BYTES)

        def ours() -> None:
            for offset in offsets:
                self.tier.get_range(ObjectKey(self._key(name, 0)), ByteRange(offset, RANGE_BYTES))

        def plain() -> None:
            for offset in offsets:
                wanted = f"bytes={offset}-{offset + RANGE_BYTES - 1}"
                key = f"plain/{self._key(name, 0)}"
                self._client.get_object(Bucket=BUCKET, Key=key, Range=wanted)["Body"].read()

        return Task(f"{len(offsets)} ranges of 256 KiB", SIZES[name][0], {"dicomfs": ours, "boto3": plain})

    def _listing(self) -> Task:
        prefix = f"{self._round}/64-kib"

        def ours() -> None:
            assert len(list(self.tier.list(prefix))) == SIZES["64 KiB"][1]

        def plain() -> None:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=BUCKET, Prefix=f"plain/{prefix}/"
            )
            assert sum(len(page["Contents"]) for page in pages) == SIZES["64 KiB"][1]

        return Task(f"list {SIZES['64 KiB'][1]}", 0, {"dicomfs": ours, "boto3": plain})


def ratio(mine: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], field: int) -> float:
    """Median over rounds of one figure against another of the same round."""
    each = [one[field] / other[field] for one, other in zip(mine, theirs, strict=True)]
    return round(statistics.median(each), 2)


def measure(runs: int) -> list[dict[str, Any]]:
    """Medians by task and way: seconds, CPU seconds of this process, requests."""
    taken: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    moved: dict[str, int] = {}
    with running_ceph() as ceph, tempfile.TemporaryDirectory() as folder:
        os.environ.update(ceph.environment)
        benchmark = Benchmark(Path(folder))
        for number in range(runs + 1):
            for task in benchmark.tasks():
                moved[task.name] = task.moved
                # Who goes first changes; what is put first is read whoever read before.
                ways = list(task.ways.items())
                for way, work in ways if number % 2 else reversed(ways):
                    before, wall, cpu = benchmark.requests(), time.perf_counter(), time.process_time()
                    work()
                    used = (
                        time.perf_counter() - wall,
                        time.process_time() - cpu,
                        benchmark.requests() - before,
                    )
                    if number:  # the first round warms up
                        taken[task.name, way].append(used)
    return [
        {
            "task": name,
            "way": way,
            "ms": round(statistics.median(seconds for seconds, _, _ in runs_of) * 1000, 1),
            "mb_s": round(moved[name] / statistics.median(s for s, _, _ in runs_of) / 1e6, 1),
            "cpu_ms": round(statistics.median(cpu for _, cpu, _ in runs_of) * 1000, 1),
            "requests": round(statistics.median(count for _, _, count in runs_of)),
            "time_to_boto3": ratio(runs_of, taken[name, "boto3"], 0),
            "cpu_to_boto3": ratio(runs_of, taken[name, "boto3"], 1),
        }
        for (name, way), runs_of in taken.items()
    ]


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.runs)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print_table(sorted(rows, key=lambda row: str(row["task"])))


if __name__ == "__main__":
    main()
