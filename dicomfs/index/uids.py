"""The index from SOP Instance UIDs to instances: a hash narrows down, the UID itself decides.

Six bytes of SHA-256 make one false candidate among ten million instances unlikely, and a candidate is
always compared with the UID in its record, so a collision costs a lookup, never a wrong answer.
"""

from __future__ import annotations

import hashlib

from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import Table
from dicomfs.model import InstanceId

_HASH_BYTES = 6


def _hash(uid: str) -> bytes:
    return hashlib.sha256(uid.encode("utf-8", "surrogatepass")).digest()[:_HASH_BYTES]


def _entry(uid: str, series: int, position: int) -> tuple[bytes, bytes]:
    digest = _hash(uid)
    return digest[:1], digest[1:] + series.to_bytes(5, "big") + position.to_bytes(3, "big")


def add_uids(txn: WriteTxn, table: Table, entries: list[tuple[str, InstanceId]]) -> None:
    """Adds instances under their UIDs."""
    txn.put_duplicates(
        table, sorted(_entry(uid, instance.series, instance.position) for uid, instance in entries)
    )


def remove_uid(txn: WriteTxn, table: Table, uid: str, instance: InstanceId) -> None:
    """Removes one instance; nothing happens where it is not there."""
    key, value = _entry(uid, instance.series, instance.position)
    txn.delete(table, key, value)


def candidates(txn: ReadTxn, table: Table, uid: str) -> list[InstanceId]:
    """Instances whose UID has the same hash."""
    digest = _hash(uid)
    return [
        InstanceId(int.from_bytes(value[-8:-3], "big"), int.from_bytes(value[-3:], "big"))
        for value in txn.duplicates(table, digest[:1], digest[1:])
    ]
