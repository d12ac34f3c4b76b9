"""Writing objects, placements, references and intents: what gc and the tiers go by."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import INTENTS, OBJECTS, REFERENCES, pack_object_key, unpack_object_key
from dicomfs.index.records import Intent, ObjectRecord, StoredIntent, StoredObject, pack_record, unpack_record
from dicomfs.model import ObjectKey


def get_object(txn: ReadTxn, key: ObjectKey) -> ObjectRecord:
    """An object and its placements.  Raises NotFoundError."""
    value = txn.get(OBJECTS, pack_object_key(key))
    if value is None:
        raise NotFoundError("object", key)
    return object_record(key, value)


def object_record(key: ObjectKey, value: bytes) -> ObjectRecord:
    """The public form of a stored object."""
    stored = unpack_record(value, StoredObject)
    return ObjectRecord(key, stored.size, stored.tiers)


def get_references(txn: ReadTxn, header_key: ObjectKey) -> list[ObjectKey]:
    """Objects that a header pack's instances need; empty where none were recorded."""
    value = txn.get(REFERENCES, pack_object_key(header_key))
    return [] if value is None else [unpack_object_key(short) for short in unpack_record(value, list[bytes])]


def list_intents(txn: ReadTxn) -> list[Intent]:
    """All intents."""
    found = []
    for key, value in txn.scan(INTENTS):
        stored = unpack_record(value, StoredIntent)
        found.append(Intent(unpack_object_key(key), stored.owner, stored.since_ns))
    return found


class ObjectWriter:
    """The part of `CatalogWriter` that deals with objects."""

    def __init__(self, txn: WriteTxn) -> None:
        self._txn = txn

    def add_object(self, key: ObjectKey, size: int, tier: str, verified_ns: int) -> None:
        """Records that ``tier`` holds an object, verified at ``verified_ns``; again: a later verification.

        Raises CatalogError where the object is known with another size.
        """
        short = pack_object_key(key)
        value = self._txn.get(OBJECTS, short)
        stored = StoredObject(size, {}) if value is None else unpack_record(value, StoredObject)
        if stored.size != size:
            msg = f"catalog: object {key} has {stored.size} bytes, not {size}"
            raise CatalogError(msg)
        self._txn.put(OBJECTS, short, pack_record(StoredObject(size, {**stored.tiers, tier: verified_ns})))

    def remove_placement(self, key: ObjectKey, tier: str) -> None:
        """Records that ``tier`` holds the object no longer.  Raises NotFoundError for an unknown object."""
        record = get_object(self._txn, key)
        tiers = {name: verified for name, verified in record.tiers.items() if name != tier}
        self._txn.put(OBJECTS, pack_object_key(key), pack_record(StoredObject(record.size, tiers)))

    def remove_object(self, key: ObjectKey) -> None:
        """Forgets an object, its placements and its references."""
        self._txn.delete(OBJECTS, pack_object_key(key))
        self._txn.delete(REFERENCES, pack_object_key(key))

    def set_references(self, header_key: ObjectKey, needed: Sequence[ObjectKey]) -> None:
        """Records which other objects the instances of a header pack need."""
        value = pack_record([pack_object_key(key) for key in needed])
        self._txn.put(REFERENCES, pack_object_key(header_key), value)

    def add_intent(self, key: ObjectKey, owner: str) -> None:
        """Keeps an object that is about to be placed from being collected."""
        self._txn.put(INTENTS, pack_object_key(key), pack_record(StoredIntent(owner, time.time_ns())))

    def remove_intent(self, key: ObjectKey) -> None:
        """Ends an intent; nothing happens without one."""
        self._txn.delete(INTENTS, pack_object_key(key))
