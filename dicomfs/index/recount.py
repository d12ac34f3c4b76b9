"""Counting the archive from its records: the proof of the running totals."""

from __future__ import annotations

from dicomfs.index.env import Environment, ReadTxn
from dicomfs.index.keys import NODES, PARTS, SPOOLED
from dicomfs.index.parts import decode_part, read_head
from dicomfs.index.records import Counts, StoredSpooled, unpack_record
from dicomfs.model import Level

_PARTS_AT_ONCE = 2000


def recount(spool: Environment, catalog: Environment) -> Counts:
    """Totals counted one by one, in transactions shorter than a second.

    Exact when nothing is written meanwhile.  Parts are decoded only where the spool holds instances
    of their series: elsewhere the head has what is needed.
    """
    with spool.read() as txn:
        spooled = {
            (int.from_bytes(key[:5], "big"), int.from_bytes(key[5:], "big")): unpack_record(
                value, StoredSpooled
            ).size
            for key, value in txn.scan(SPOOLED)
        }
    instances, size = len(spooled), sum(spooled.values())
    spooled_series = {series for series, _ in spooled}
    start: bytes | None = b""
    while start is not None:
        with catalog.read() as txn:
            more, more_bytes, start = _count_parts(txn, start, spooled, spooled_series)
        instances += more
        size += more_bytes
    with catalog.read() as txn:
        patients, studies, series = (sum(1 for _ in txn.scan(NODES, NODES.pack(level))) for level in Level)
    return Counts(patients, studies, series, instances, size, len(spooled), sum(spooled.values()))


def _count_parts(
    txn: ReadTxn, start: bytes, spooled: dict[tuple[int, int], int], spooled_series: set[int]
) -> tuple[int, int, bytes | None]:
    instances = size = 0
    for done, (key, blob) in enumerate(txn.scan(PARTS, start=start)):
        if done == _PARTS_AT_ONCE:
            return instances, size, key
        head = read_head(blob)
        instances += head.rows
        size += head.logical_bytes
        series = PARTS.numbers(key)[0]
        if series in spooled_series:
            for position in decode_part(series, blob).positions.tolist():
                if (series, position) in spooled:
                    instances -= 1
                    size -= spooled[series, position]
    return instances, size, None
