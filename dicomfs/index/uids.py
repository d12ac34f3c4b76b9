"""The index from SOP Instance UIDs to instances: a hash narrows down, the UID itself decides.

Three bytes hash the UID without its last twelve characters, three more all of it.  Devices number or
time-stamp their instances, so those of a series lie together and a commit touches a few pages, not one
per instance.  A candidate is always compared with the UID in its record: a collision costs a lookup,
never a wrong answer.
"""

from __future__ import annotations

import hashlib

from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import Table
from dicomfs.model import InstanceId

_HASH_BYTES = 3
_OWN_CHARACTERS = 12


def _hash(uid: str) -> bytes:
    raw = uid.encode("utf-8", "surrogatepass")
    common = hashlib.sha256(raw[:-_OWN_CHARACTERS]).digest()[:_HASH_BYTES]
    return common + hashlib.sha256(raw).digest()[:_HASH_BYTES]


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
