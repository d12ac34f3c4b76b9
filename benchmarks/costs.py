"""Works out what an archive costs on an object store, from measured sizes and list prices.

    python -m benchmarks.costs [--raw-tb 10] [--years 5] [--ratio 4.0] [--raw-mb-per-object 17]

``ratio`` is raw bytes to stored bytes, as `dicomfs estimate` tells it for one's own files; ``raw-mb-per-
object`` what `dicomfs status` tells after a while: logical bytes by objects.  Every object is put once,
read back once, and read again in part; the peer is the same files as they are, one object each.  Prices
are those of Amazon S3, us-east-1, first 50 TB, in US dollars, without tax, as publicly listed in 2025:
look them up again before relying on a figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from dicomfs.prices import GB, LIST_PRICES, Price

MONTHS = 12


CLASSES = ("STANDARD", "STANDARD_IA", "GLACIER_IR", "DEEP_ARCHIVE")


@dataclass(frozen=True, slots=True)
class Load:
    """What comes in and goes out in a year."""

    raw_bytes: float
    stored_bytes: float
    objects: float
    read_bytes: float
    reads: float
    """Range requests for what is read again."""


def monthly(price: Price, load: Load, years: int) -> float:
    """Dollars in the last month of so many years of the same load."""
    billed = max(load.stored_bytes, load.objects * price.least_bytes) + load.objects * price.overhead_bytes
    storage = years * billed / GB * price.storage_gb_month
    # Putting looks first, and reads all of it back.
    requests = (
        load.objects * (price.put_1000 + 2 * price.get_1000) / 1000 + load.reads * price.get_1000 / 1000
    )
    retrieval = (load.stored_bytes + load.read_bytes) / GB * price.retrieval_gb
    return storage + (requests + retrieval) / MONTHS


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw-tb", type=float, default=10.0)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--raw-mb-per-object", type=float, default=17.0)
    parser.add_argument("--raw-mb-per-file", type=float, default=0.5)
    parser.add_argument(
        "--read-share", type=float, default=0.02, help="of what is stored, read again in a year"
    )
    options = parser.parse_args(arguments)
    raw = options.raw_tb * 1e12
    packed = Load(
        raw,
        raw / options.ratio,
        raw / (options.raw_mb_per_object * 1e6),
        options.years * options.read_share * raw / options.ratio,
        options.years * options.read_share * raw / options.ratio / 2e6,
    )
    files = raw / (options.raw_mb_per_file * 1e6)
    plain = Load(
        raw, raw, files, options.years * options.read_share * raw, options.years * options.read_share * files
    )
    print(f"{packed.objects:,.0f} objects a year instead of {plain.objects:,.0f}")
    print(f"| class | dicomfs, $ in month {MONTHS * options.years} | one object a file | ratio |")
    print("|---|---|---|---|")
    for name in CLASSES:
        price = LIST_PRICES[name]
        ours, theirs = monthly(price, packed, options.years), monthly(price, plain, options.years)
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.3f} |")


if __name__ == "__main__":
    main()
