"""Measures what encryption costs: a sealed tier against the same tier in the clear, call by call.

    python -m benchmarks.sealed [--runs 15] [--folder FOLDER] [--json]

Objects of random bytes in memory and in a folder (in the page cache).  Rounds are interleaved; the median
CPU time of a call is printed with its ratio to the plain tier's.  A plain tier in memory does nothing but
copy, so the ratio there is the highest there can be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dicomfs.crypto.keys import new_key
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, Tier
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.sealed import SealedTier

_OBJECT = 32 << 20
_READS = {"read 4 KiB": 4 << 10, "read 64 KiB": 64 << 10, "read 1 MiB": 1 << 20, "read 8 MiB": 8 << 20}
_PUT = "put 8 MiB"


def cpu_seconds(call: Callable[[], object], least: float = 0.02) -> float:
    """CPU seconds of one call, repeated until it can be measured."""
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < least:
        call()
        calls += 1
    return spent / calls


def stored(tier: Tier, data: bytes) -> ObjectKey:
    """The key under which these bytes were put."""
    digest = hashlib.sha256(data).hexdigest()
    key = ObjectKey(f"pixel/{digest[:2]}/{digest}")
    tier.put(key, data, digest)
    return key


def measured(tier: Tier, key: ObjectKey, what: str) -> float:
    """CPU seconds of a call."""
    if what == _PUT:
        data = secrets.token_bytes(8 << 20)
        started = time.process_time()
        put = stored(tier, data)
        spent = time.process_time() - started
        tier.delete(put)
        return spent
    size = _READS[what]
    offset = secrets.randbelow(_OBJECT - size)
    return cpu_seconds(lambda: tier.get_range(key, ByteRange(offset, size)))


def run(folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Median seconds of each call on each plain tier, and the ratio of the sealed one's."""
    pairs: dict[str, tuple[Tier, Tier]] = {}
    for name, make in (
        ("memory", lambda _: MemoryTier()),
        ("folder", lambda path: FolderTier("laboratory", path)),
    ):
        paths = (folder / name, folder / f"{name} sealed")
        for path in paths:
            path.mkdir()
        pairs[name] = (make(paths[0]), SealedTier(make(paths[1]), bytes(16), [new_key()]))
    data = secrets.token_bytes(_OBJECT)
    results = {}
    for name, tiers in pairs.items():
        key, _ = (stored(tier, data) for tier in tiers)
        for what in (*_READS, _PUT):
            times = [[measured(tier, key, what) for tier in tiers] for _ in range(runs)]
            plain, sealed = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(one[1] / one[0] for one in times)
            results[f"{name}, {what}"] = {"plain": plain, "sealed": sealed, "ratio": ratio}
    return results


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="where the folder tiers are made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = run(Path(folder), options.runs)
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for what, row in results.items():
        plain, sealed = (f"{1e6 * row[kind]:9.0f} µs" for kind in ("plain", "sealed"))
        print(f"{what:22} plain {plain}   sealed {sealed}   × {row['ratio']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
