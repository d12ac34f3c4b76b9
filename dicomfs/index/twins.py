"""Twins: packs that hold the frames of another pack, coded in another way, for other tiers.

Owns how the records of a pack and its twins refer to each other.  A pack is read for its names, and so is
each of its twins; which of them are there changes, so when the last copy of the pack goes, a twin takes its
place: from then on it is a pack like any other, and the old key one of its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from dicomfs.errors import NotFoundError
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import OBJECTS, USED, pack_object_key, unpack_object_key
from dicomfs.index.records import Family, ObjectRecord, StoredObject, pack_record, unpack_record
from dicomfs.index.uses import add_use, names_of, object_user, remove_use
from dicomfs.model import ObjectKey


def stored_object(txn: ReadTxn, key: ObjectKey) -> StoredObject | None:
    """The record of an object, or of a name that another is read by."""
    value = txn.get(OBJECTS, pack_object_key(key))
    return None if value is None else unpack_record(value, StoredObject)


def put_object(txn: WriteTxn, key: ObjectKey, stored: StoredObject) -> None:
    """Write the record of an object."""
    txn.put(OBJECTS, pack_object_key(key), pack_record(stored))


def public_record(key: ObjectKey, stored: StoredObject) -> ObjectRecord:
    """The public form of a stored object."""
    of = unpack_object_key(stored.twin_of) if stored.twin_of else None
    return ObjectRecord(key, stored.size, stored.tiers, stored.profile, stored.kept, of)


def get_family(txn: ReadTxn, key: ObjectKey) -> Family | None:
    """The pack that a key is read by, or is a twin of, with its twins; any other object is alone."""
    stored = stored_object(txn, key)
    while stored is not None and (stored.stand_in or stored.twin_of):
        key = unpack_object_key(stored.stand_in or stored.twin_of)
        stored = stored_object(txn, key)
    if stored is None:
        return None
    twins = ((unpack_object_key(short), short) for short in stored.twins)
    found = ((twin, stored_object(txn, twin)) for twin, _ in twins)
    return Family(
        (public_record(key, stored), *(public_record(twin, one) for twin, one in found if one is not None))
    )


def make_twin(txn: WriteTxn, twin: ObjectKey, of: ObjectKey) -> None:
    """Record that an object that is known is a twin of the pack that ``of`` is read by, or is a twin of.

    Raises NotFoundError where that is not known (any more).
    """
    family, stored = get_family(txn, of), stored_object(txn, twin)
    if family is None or stored is None:
        raise NotFoundError("object", of if family is None else twin)
    key = family.members[0].key
    pack = stored_object(txn, key)
    assert pack is not None
    if key == twin or pack_object_key(twin) in pack.twins:
        return
    put_object(txn, twin, replace(stored, twin_of=pack_object_key(key)))
    put_object(txn, key, replace(pack, twins=(*pack.twins, pack_object_key(twin))))


def leave(txn: WriteTxn, key: ObjectKey, stored: StoredObject) -> None:
    """Take an object that is about to be forgotten out of its family.

    The twins of a pack that nobody needs any more are then packs of their own that nobody needs.
    """
    if stored.twin_of:
        of = unpack_object_key(stored.twin_of)
        pack = stored_object(txn, of)
        if pack is not None:
            others = tuple(short for short in pack.twins if short != pack_object_key(key))
            put_object(txn, of, replace(pack, twins=others))
    for twin, one in _twins(txn, stored.twins):
        put_object(txn, twin, replace(one, twin_of=b""))


def succeed(txn: WriteTxn, key: ObjectKey, heir: ObjectKey) -> None:
    """Let another pack, which is known, take the place of one: its names and its twins are the heir's.

    The heir may be one of the twins.  The old key, of a pack and no twin, becomes a name.
    """
    old, new = stored_object(txn, key), stored_object(txn, heir)
    assert old is not None
    assert new is not None
    inherited = [(twin, one) for twin, one in _twins(txn, old.twins) if twin != heir]
    for twin, one in inherited:
        put_object(txn, twin, replace(one, twin_of=pack_object_key(heir)))
    twins = dict.fromkeys((*new.twins, *(pack_object_key(twin) for twin, _ in inherited)))
    put_object(txn, heir, replace(new, twins=tuple(twins), twin_of=b""))
    for name in names_of(txn, key):
        known = stored_object(txn, name)
        remove_use(txn, key, object_user(name))
        if name != heir and known is not None:
            _read_by(txn, name, known, heir)
    _read_by(txn, key, old, heir)
    used = txn.get(USED, pack_object_key(key))
    if used is not None:
        txn.put(USED, pack_object_key(heir), max(used, txn.get(USED, pack_object_key(heir)) or b""))
        txn.delete(USED, pack_object_key(key))


def broken_twins(txn: ReadTxn) -> list[ObjectKey]:
    """Objects whose record of a twin, or of whose twin they are, has no counterpart: for `verify`."""
    said: set[tuple[bytes, bytes]] = set()
    meant: set[tuple[bytes, bytes]] = set()
    for short, value in txn.scan(OBJECTS):
        stored = unpack_record(value, StoredObject)
        said |= {(short, twin) for twin in stored.twins}
        meant |= {(stored.twin_of, short)} if stored.twin_of else set()
    return sorted({unpack_object_key(twin) for _, twin in said ^ meant})


def _read_by(txn: WriteTxn, name: ObjectKey, stored: StoredObject, heir: ObjectKey) -> None:
    put_object(txn, name, StoredObject(stored.size, {}, stand_in=pack_object_key(heir)))
    add_use(txn, heir, object_user(name))


def _twins(txn: ReadTxn, shorts: Iterable[bytes]) -> Iterator[tuple[ObjectKey, StoredObject]]:
    for short in shorts:
        twin = unpack_object_key(short)
        stored = stored_object(txn, twin)
        if stored is not None:
            yield twin, stored
