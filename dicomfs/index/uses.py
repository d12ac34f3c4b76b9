"""Who needs an object: parts their header pack, header packs what they name, names the pack they are read by.

The inverse of what `parts`, `references` and stand-ins say, so that one look tells whether anything needs an
object.  Every user is an entry of its own, written in the transaction that makes the reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import OBJECTS, PARTS, REFERENCES, USES, pack_object_key, unpack_object_key
from dicomfs.index.parts import read_head
from dicomfs.index.records import StoredObject, unpack_record
from dicomfs.model import ObjectKey

_PART = b"\x00"
"""Begins a user that is a part; no short key begins so."""


def part_user(series: int, part: int) -> bytes:
    """A part of a series as a user."""
    return _PART + PARTS.pack(series, part)


def object_user(key: ObjectKey) -> bytes:
    """A header pack, or a name that is read by a stand-in, as a user."""
    return pack_object_key(key)


def add_use(txn: WriteTxn, key: ObjectKey, user: bytes) -> None:
    """Record that somebody needs an object."""
    txn.put(USES, _prefix(key) + user, b"")


def remove_use(txn: WriteTxn, key: ObjectKey, user: bytes) -> None:
    """Record that somebody needs it no longer; nothing happens where that is known."""
    txn.delete(USES, _prefix(key) + user)


def is_used(txn: ReadTxn, key: ObjectKey) -> bool:
    """Whether a part, a header pack, or a name that is needed itself, needs an object or its family."""
    return any(_is_used(txn, member) for member in _family(txn, key))


def _family(txn: ReadTxn, key: ObjectKey) -> Iterator[ObjectKey]:
    """The object first; a name that another object is read by is no member."""
    yield key
    stored = _stored(txn, key)
    pack = stored if stored is None or not stored.twin_of else _stored(txn, unpack_object_key(stored.twin_of))
    if stored is None or pack is None:
        return
    yield from (unpack_object_key(short) for short in (stored.twin_of, *pack.twins) if short)


def _stored(txn: ReadTxn, key: ObjectKey) -> StoredObject | None:
    value = txn.get(OBJECTS, pack_object_key(key))
    return None if value is None else unpack_record(value, StoredObject)


def _is_used(txn: ReadTxn, key: ObjectKey) -> bool:
    prefix = _prefix(key)
    for entry, _ in txn.scan(USES, prefix):
        user = entry[len(prefix) :]
        if user[:1] == _PART:
            return True
        name = unpack_object_key(user)
        # A header pack is a user as long as it is known; a name only as long as it has users itself.
        if name.startswith("header/") or (name != key and is_used(txn, name)):
            return True
    return False


def is_named(txn: ReadTxn, key: ObjectKey) -> bool:
    """Whether anybody refers to an object by this key of it."""
    return next(iter(txn.scan(USES, _prefix(key))), None) is not None


def names_of(txn: ReadTxn, key: ObjectKey) -> list[ObjectKey]:
    """Names of moved packs that are read by an object."""
    prefix = _prefix(key)
    users = (entry[len(prefix) :] for entry, _ in txn.scan(USES, prefix))
    names = [unpack_object_key(user) for user in users if user[:1] != _PART]
    return [name for name in names if not name.startswith("header/")]


def parts_using(txn: ReadTxn, header_key: ObjectKey) -> list[tuple[int, int]]:
    """Series and number of the parts whose instances a header pack holds."""
    prefix = _prefix(header_key)
    found = []
    for entry, _ in txn.scan(USES, prefix + _PART):
        series, part = PARTS.numbers(entry[len(prefix) + 1 :])
        found.append((series, part))
    return found


def all_uses(txn: ReadTxn) -> set[bytes]:
    """Every entry, for comparison with `derived_uses`."""
    return {key for key, _ in txn.scan(USES)}


def derived_uses(txn: ReadTxn) -> set[bytes]:
    """What the entries have to be, from parts, references and stand-ins."""
    return set(_derived(txn))


def _derived(txn: ReadTxn) -> Iterator[bytes]:
    for key, blob in txn.scan(PARTS):
        yield _prefix(read_head(blob).header_key) + _PART + key
    for key, value in txn.scan(REFERENCES):
        for needed in unpack_record(value, list[bytes]):
            yield _sized(needed) + key
    for key, value in txn.scan(OBJECTS):
        stand_in = unpack_record(value, StoredObject).stand_in
        if stand_in:
            yield _sized(stand_in) + key


def fill_uses(txn: WriteTxn) -> None:
    """Write all entries of an index that has none: the step to schema version 2."""
    for entry in sorted(derived_uses(txn)):
        txn.put(USES, entry, b"")


def _prefix(key: ObjectKey) -> bytes:
    return _sized(pack_object_key(key))


def _sized(short: bytes) -> bytes:
    return bytes((len(short),)) + short
