"""Writing objects, placements, references and intents: what gc and the tiers go by."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import (
    CONDEMNED,
    INTENTS,
    NEEDS,
    OBJECTS,
    PINS,
    REFERENCES,
    USED,
    pack_object_key,
    unpack_object_key,
)
from dicomfs.index.records import (
    Condemned,
    Intent,
    ObjectRecord,
    PartInfo,
    StoredCondemned,
    StoredIntent,
    StoredObject,
    pack_record,
    unpack_record,
)
from dicomfs.index.twins import leave, make_twin, public_record, put_object, stored_object, succeed
from dicomfs.index.uses import add_use, is_named, is_used, names_of, object_user, remove_use
from dicomfs.model import ObjectKey


def get_object(txn: ReadTxn, key: ObjectKey) -> ObjectRecord:
    """An object and its placements.  Raises NotFoundError."""
    value = txn.get(OBJECTS, pack_object_key(key))
    record = None if value is None else object_record(key, value)
    if record is None:
        raise NotFoundError("object", key)
    return record


def object_record(key: ObjectKey, value: bytes) -> ObjectRecord | None:
    """The public form of a stored object; None for one that another stands in for."""
    stored = unpack_record(value, StoredObject)
    return None if stored.stand_in else public_record(key, stored)


def get_placed(txn: ReadTxn, key: ObjectKey) -> ObjectKey:
    """The object that counts for a key: its stand-in, the pack that it is a twin of, or itself."""
    stored = stored_object(txn, key)
    short = b"" if stored is None else stored.stand_in or stored.twin_of
    return unpack_object_key(short) if short else key


def get_references(txn: ReadTxn, header_key: ObjectKey) -> list[ObjectKey]:
    """Objects that a header pack's instances need; empty where none were recorded."""
    value = txn.get(REFERENCES, pack_object_key(header_key))
    return [] if value is None else [unpack_object_key(short) for short in unpack_record(value, list[bytes])]


def get_needs(txn: ReadTxn, part: PartInfo) -> list[ObjectKey]:
    """Objects that a part's instances need; all that its header pack names, where nobody recorded it."""
    value = txn.get(NEEDS, NEEDS.pack(part.series, part.part))
    if value is None:
        return get_references(txn, part.header_key)
    return [unpack_object_key(short) for short in unpack_record(value, list[bytes])]


def list_references(txn: ReadTxn) -> Iterator[tuple[ObjectKey, list[ObjectKey]]]:
    """Every header pack with what its instances need."""
    for key, value in txn.scan(REFERENCES):
        yield (
            unpack_object_key(key),
            [unpack_object_key(short) for short in unpack_record(value, list[bytes])],
        )


def list_intents(txn: ReadTxn) -> list[Intent]:
    """All intents."""
    found = []
    for key, value in txn.scan(INTENTS):
        stored = unpack_record(value, StoredIntent)
        found.append(Intent(unpack_object_key(key), stored.owner, stored.since_ns))
    return found


def list_pinned(txn: ReadTxn) -> set[int]:
    """Numbers of the series that are pinned."""
    return {PINS.numbers(key)[0] for key, _ in txn.scan(PINS)}


def list_used(txn: ReadTxn) -> dict[ObjectKey, int]:
    """When each object was last read (ns), where that was noted."""
    return {unpack_object_key(key): int.from_bytes(value, "big") for key, value in txn.scan(USED)}


def list_condemned(txn: ReadTxn) -> list[Condemned]:
    """All copies that are to go."""
    return [
        Condemned(unpack_object_key(key), tier, since)
        for key, value in txn.scan(CONDEMNED)
        for tier, since in sorted(unpack_record(value, StoredCondemned).tiers.items())
    ]


class ObjectWriter:
    """The part of `CatalogWriter` that deals with objects."""

    def __init__(self, txn: WriteTxn) -> None:
        self._txn = txn

    def add_object(self, key: ObjectKey, size: int, tier: str, verified_ns: int, profile: str = "") -> None:
        """Records that ``tier`` holds an object, verified at ``verified_ns``; again: a later verification.

        A copy that was condemned there is so no longer.  Raises CatalogError where the object is known with
        another size.
        """
        self._reprieve(key, tier)
        stored = self._stored(key)
        if stored is None or stored.stand_in:
            if stored is not None:
                self._end_stand_in(key, stored)
            stored = StoredObject(size, {})
        if stored.size != size:
            msg = f"catalog: object {key} has {stored.size} bytes, not {size}"
            raise CatalogError(msg)
        tiers = {**stored.tiers, tier: verified_ns}
        self._put(key, replace(stored, tiers=tiers, profile=profile or stored.profile))

    def note_verified(self, key: ObjectKey, tier: str, verified_ns: int) -> None:
        """Records a later verification of a copy; nothing happens where it is not recorded (any more)."""
        stored = self._stored(key)
        if stored is not None and tier in stored.tiers:
            self._put(key, replace(stored, tiers={**stored.tiers, tier: verified_ns}))

    def note_profile(self, key: ObjectKey, profile: str, kept: str) -> None:
        """Records with which profile an object was packed, and to which one moving it gains nothing.

        Raises NotFoundError for an unknown object.
        """
        self._put(key, replace(self._known(key), profile=profile, kept=kept))

    def stand_in(self, key: ObjectKey, stand_in: ObjectKey) -> None:
        """Records that an object is read by another name from now on; its own placements are forgotten."""
        stored = self._stored(key) or StoredObject(0, {})
        self._end_stand_in(key, stored)
        leave(self._txn, key, stored)
        add_use(self._txn, stand_in, object_user(key))
        self._put(key, StoredObject(stored.size, {}, stand_in=pack_object_key(stand_in)))

    def add_twin(self, key: ObjectKey, of: ObjectKey) -> None:
        """Records that an object that was added holds the frames of a pack, coded in another way.

        Raises NotFoundError where the catalog knows the pack no longer.
        """
        make_twin(self._txn, key, of)

    def lead(self, key: ObjectKey) -> None:
        """Records that a twin is the pack from now on, and the pack its twin; nothing happens to a pack.

        Raises NotFoundError for an unknown object.
        """
        stored = self._known(key)
        if stored.twin_of:
            pack = unpack_object_key(stored.twin_of)
            self.succeed(pack, key, kept=self._known(pack).tiers)

    def succeed(self, key: ObjectKey, heir: ObjectKey, *, kept: Collection[str] = ()) -> None:
        """Records that another pack takes the place of one, which stays as its twin on the tiers ``kept``.

        Where it stays on none, the heir is read by its name from now on.  Raises NotFoundError where one of
        them is not known.
        """
        stored = self._known(key)
        self._known(heir)
        succeed(self._txn, key, heir)
        tiers = {name: verified for name, verified in stored.tiers.items() if name in kept}
        if tiers:
            self._end_stand_in(key, StoredObject(0, {}, stand_in=pack_object_key(heir)))
            self._put(key, StoredObject(stored.size, tiers, stored.profile, stored.kept))
            make_twin(self._txn, key, heir)

    def remove_placement(self, key: ObjectKey, tier: str) -> None:
        """Records that ``tier`` holds the object no longer.  Raises NotFoundError for an unknown object.

        With its last copy a twin is forgotten, except for its name; of a pack, a twin takes the place.
        """
        stored = self._known(key)
        tiers = {name: verified for name, verified in stored.tiers.items() if name != tier}
        self._put(key, replace(stored, tiers=tiers))
        if tiers:
            return
        if stored.twin_of and is_named(self._txn, key):
            self.stand_in(key, unpack_object_key(stored.twin_of))
        elif stored.twin_of:
            self.remove_object(key)
        elif stored.twins:
            succeed(self._txn, key, unpack_object_key(stored.twins[0]))

    def remove_object(self, key: ObjectKey) -> None:
        """Forgets an object, its placements and its references."""
        stored = self._stored(key)
        if stored is not None:
            self._end_stand_in(key, stored)
            leave(self._txn, key, stored)
        self._end_references(key)
        self._txn.delete(OBJECTS, pack_object_key(key))
        self._txn.delete(REFERENCES, pack_object_key(key))
        self._txn.delete(USED, pack_object_key(key))

    def remove_names(self, key: ObjectKey) -> None:
        """Forgets the names that an object is read by besides its own; call it when the object goes."""
        for name in names_of(self._txn, key):
            self.remove_object(name)

    def set_references(
        self, header_key: ObjectKey, needed: Sequence[ObjectKey], *, may_be_missing: bool = False
    ) -> None:
        """Records which other objects the instances of a header pack need; those are condemned no longer.

        Raises NotFoundError where one is not known (any more), unless it may be missing: for recovery.
        """
        for key in needed:
            placed = get_placed(self._txn, key)
            if not may_be_missing:
                get_object(self._txn, placed)
            self._reprieve(placed)
        self._end_references(header_key)
        for key in needed:
            add_use(self._txn, key, object_user(header_key))
        value = pack_record([pack_object_key(key) for key in needed])
        self._txn.put(REFERENCES, pack_object_key(header_key), value)

    def set_needs(self, series: int, part: int, needed: Iterable[ObjectKey]) -> None:
        """Records which other objects the instances of one part need."""
        value = pack_record([pack_object_key(key) for key in sorted(needed)])
        self._txn.put(NEEDS, NEEDS.pack(series, part), value)

    def is_used(self, key: ObjectKey) -> bool:
        """Whether anything needs an object, or somebody is about to place it."""
        return is_used(self._txn, key) or self._txn.get(INTENTS, pack_object_key(key)) is not None

    def condemn(self, key: ObjectKey, tier: str, since_ns: int) -> None:
        """Records that a copy is to go; the earlier time counts."""
        tiers = self._condemned(key)
        self._put_condemned(key, {**tiers, tier: min(since_ns, tiers.get(tier, since_ns))})

    def let_go(self, key: ObjectKey, tier: str) -> bool:
        """Forgets a condemned copy that is about to be deleted; False where it may not go after all.

        A copy that is not recorded may go unless somebody is about to place it; one that is recorded only
        while nobody needs the object.  With its last copy the object is forgotten, and its other names.
        """
        if tier not in self._condemned(key):
            return False
        stored = self._stored(key)
        recorded = stored is not None and not stored.stand_in and tier in stored.tiers
        about_to = self._txn.get(INTENTS, pack_object_key(key)) is not None
        if about_to or (recorded and is_used(self._txn, key)):
            self._reprieve(key, tier)
            return False
        if recorded and stored is not None:
            if stored.tiers.keys() == {tier}:
                self.remove_names(key)
                self.remove_object(key)
            else:
                self.remove_placement(key, tier)
        return True

    def end_condemned(self, key: ObjectKey, tier: str) -> None:
        """Forgets that a copy is to go: it is gone, or it is needed."""
        self._reprieve(key, tier)

    def add_intent(self, key: ObjectKey, owner: str) -> None:
        """Keeps an object that is about to be placed from being collected."""
        self._txn.put(INTENTS, pack_object_key(key), pack_record(StoredIntent(owner, time.time_ns())))

    def remove_intent(self, key: ObjectKey) -> None:
        """Ends an intent; nothing happens without one."""
        self._txn.delete(INTENTS, pack_object_key(key))

    def set_pinned(self, series: int, *, pinned: bool) -> None:
        """Records whether what a series needs stays on the local tier."""
        if pinned:
            self._txn.put(PINS, PINS.pack(series), time.time_ns().to_bytes(8, "big"))
        else:
            self._txn.delete(PINS, PINS.pack(series))

    def note_used(self, times_ns: Mapping[ObjectKey, int]) -> None:
        """Records when objects were last read; unknown objects are passed over."""
        for key, used_ns in times_ns.items():
            short = pack_object_key(key)
            if self._txn.get(OBJECTS, short) is not None:
                self._txn.put(USED, short, used_ns.to_bytes(8, "big"))

    def _reprieve(self, key: ObjectKey, tier: str | None = None) -> None:
        """Forgets that the copy on a tier, or every copy, is to go."""
        tiers = self._condemned(key)
        if tiers:
            self._put_condemned(
                key, {name: since for name, since in tiers.items() if tier not in (None, name)}
            )

    def _condemned(self, key: ObjectKey) -> dict[str, int]:
        value = self._txn.get(CONDEMNED, pack_object_key(key))
        return {} if value is None else unpack_record(value, StoredCondemned).tiers

    def _put_condemned(self, key: ObjectKey, tiers: dict[str, int]) -> None:
        if tiers:
            self._txn.put(CONDEMNED, pack_object_key(key), pack_record(StoredCondemned(tiers)))
        else:
            self._txn.delete(CONDEMNED, pack_object_key(key))

    def _end_references(self, header_key: ObjectKey) -> None:
        for key in get_references(self._txn, header_key):
            remove_use(self._txn, key, object_user(header_key))

    def _end_stand_in(self, key: ObjectKey, stored: StoredObject) -> None:
        if stored.stand_in:
            remove_use(self._txn, unpack_object_key(stored.stand_in), object_user(key))

    def _stored(self, key: ObjectKey) -> StoredObject | None:
        return stored_object(self._txn, key)

    def _known(self, key: ObjectKey) -> StoredObject:
        get_object(self._txn, key)
        stored = self._stored(key)
        assert stored is not None
        return stored

    def _put(self, key: ObjectKey, stored: StoredObject) -> None:
        put_object(self._txn, key, stored)
