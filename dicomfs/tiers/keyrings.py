"""The keyrings of one sealed tier: which exist, which key comes next, rewrapping and destruction.

Owns the order of writes (docs/encryption.md, "Keyring"): a keyring is durable and read back before the first
object is sealed with one of its keys.  Needs of the tier that it lists what was put before.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from dicomfs.crypto.keyring import (
    KEYRING_PREFIX,
    Keyring,
    keyring_key,
    new_keyring,
    new_name_key,
    parse_keyring_key,
    read_head,
    unwrapped,
)
from dicomfs.crypto.keys import ArchiveKey
from dicomfs.crypto.segments import KeyReference
from dicomfs.errors import (
    FormatError,
    KeyDestroyed,
    KeyMissing,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    TierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)

FEWEST_KEYS, MOST_KEYS = 16, 1024
"""Keys of the first keyring that an instance makes, and of the largest: each next one has twice as many."""

_FEW = 4
"""Keyrings that are looked for one by one before all are listed."""


@dataclass(frozen=True, slots=True)
class KeyringState:
    """What can be said of a keyring without a secret."""

    number: int
    version: int
    """The newest that opens, else the newest."""
    keys: int
    key_id: str
    """16 hex digits of the archive key that wraps it; empty where it is too damaged to say."""
    older: int
    """Versions beside it: more than none while a change of keys is under way."""
    problem: str
    """Why it does not open; empty when it does."""


@dataclass(slots=True)
class Rewrapped:
    """What a change of the archive key did on one tier."""

    rewritten: int = 0
    removed: int = 0
    failed: list[str] = field(default_factory=list)
    """One sentence for each keyring that stayed as it was."""


class Keyrings:
    """Thread-safe; other processes may use the same tier at the same time.

    What was opened is remembered: a keyring changes only by losing keys.
    """

    def __init__(self, tier: Tier, archive_id: bytes | None, keys: Sequence[ArchiveKey]) -> None:
        self._tier, self._archive_id, self._keys = tier, archive_id, tuple(keys)
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._opened: dict[int, Keyring] = {}
        self._found: dict[int, list[int]] = {}
        """Versions of the keyrings that were looked for, the newest first."""
        self._looked = 0
        self._free: list[tuple[KeyReference, bytes]] = []
        self._count, self._expected = FEWEST_KEYS, 0
        self._name_key: bytes | None = None

    def name_key(self) -> bytes | None:
        """The key of names; None while nothing was ever put on the tier.

        Raises KeyMissing, ObjectDamaged, TierError.
        """
        if self._name_key is not None:
            return self._name_key
        with self._lock:
            return self._known_name_key()

    def secret(self, reference: KeyReference) -> bytes:
        """The data key of an object.

        Raises:
            KeyMissing: no archive key at hand opens its keyring.
            KeyDestroyed: the key was removed on purpose.
            ObjectDamaged: its keyring is damaged or gone.
        """
        keyring = self._opened.get(reference.keyring)
        if keyring is None:
            with self._lock:
                keyring = self._open(reference.keyring)
        name = keyring.object_key
        if reference.index >= len(keyring.data_keys):
            raise ObjectDamaged(self._tier.name, name, f"has no key {reference.index}")
        found = keyring.data_keys[reference.index]
        if found is None:
            raise KeyDestroyed(self._tier.name, name, reference.keyring, reference.index)
        return found

    def expect(self, objects: int) -> None:
        """Tell how many objects are about to be put, so that fewer keyrings are made."""
        self._expected = objects

    def take(self) -> tuple[KeyReference, bytes]:
        """A key that no object has yet; its keyring is durable on the tier.  Raises TierError."""
        with self._making:
            if not self._free:
                self._make()
            return self._free.pop()

    def ensure_name_key(self) -> bytes:
        """The key of names; on a tier without keyrings, made now.  Raises TierError."""
        if self._name_key is not None and 0 in self._opened:
            return self._name_key
        with self._lock:
            known = self._known_name_key()
            try:
                return self._open(0).name_key
            except ObjectDamaged:
                # Not there yet; or lost, and known from another keyring.
                return self._make_first(known)

    def states(self) -> Iterator[KeyringState]:
        """All keyrings, by number.  Raises TierError where the tier can't be listed."""
        with self._lock:
            self._list_all()
            versions = sorted(self._found.items())
        for number, found in versions:
            yield self._state(number, found)

    def rewrap(
        self, new: ArchiveKey, *, keep_old: bool = False, advance: Callable[[int], None] = lambda _: None
    ) -> Rewrapped:
        """Wrap every keyring by another archive key; no object is touched.

        Writes and reads back all new versions first, then removes the old ones, unless they are to be kept
        for processes that know the old key only.  Stopped at any point, the holder of both keys reads
        everything, and doing it again finishes.  ``advance`` is told the bytes of each keyring that
        is done.  Raises TierError when the tier fails; damaged keyrings are reported.
        """
        report = Rewrapped()
        with self._making, self._lock:
            self._keys = (new, *(key for key in self._keys if key != new))
            self._free.clear()
            self._rewrap_all(new, report, advance)
            if keep_old:
                return report
            # From here on nobody with the old key alone goes on: `_make` looks for this one after its put.
            report.removed += self._remove_older(0)
            # What such a process put before is listed now.
            self._rewrap_all(new, report, lambda _: None)
            for number in sorted(self._found):
                report.removed += self._remove_older(number)
        return report

    def destroy(self, references: Collection[KeyReference]) -> None:
        """Remove data keys from all versions of their keyrings: what they sealed can't be read again.

        Raises KeyMissing, ObjectDamaged, TierError; doing it again finishes.
        """
        by_keyring: dict[int, set[int]] = {}
        for reference in references:
            by_keyring.setdefault(reference.keyring, set()).add(reference.index)
        with self._making, self._lock:
            self._free = [item for item in self._free if item[0] not in references]
            for number, indexes in sorted(by_keyring.items()):
                self._list_anew(number)
                keyring = self._opened[number] = self._open_newest(number)
                alive = any(keyring.data_keys[index : index + 1] != (None,) for index in indexes)
                if alive or keyring.version != self._found[number][0]:
                    self._rewrite(number, self._keys[0], indexes)
                self._remove_older(number)

    # What follows is called with the lock held.

    def _listed(self, prefix: str) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for key, _ in self._tier.list(prefix):
            if (name := parse_keyring_key(key)) is not None:
                found.setdefault(name[0], []).append(name[1])
        return {number: sorted(versions, reverse=True) for number, versions in found.items()}

    def _list_all(self) -> None:
        self._found = self._listed(KEYRING_PREFIX)

    def _list_anew(self, number: int) -> list[int]:
        """The versions of one keyring as the tier has them now."""
        self._found.pop(number, None)
        self._found |= self._listed(keyring_key(number, 0).rpartition("/")[0])
        return self._found.get(number, [])

    def _look_for(self, number: int) -> None:
        """One keyring by itself; all at once for who needs many: a tier may have tens of thousands."""
        self._looked += 1
        if self._looked % (_FEW + 1):
            self._list_anew(number)
        else:
            self._list_all()

    def _known_name_key(self) -> bytes | None:
        if self._name_key is not None:
            return self._name_key
        problem: ObjectDamaged | None = None
        if self._list_anew(0):
            try:
                return self._open(0).name_key
            except ObjectDamaged as error:
                logger.warning("%s", error)
                problem = error
        # Should that one be lost, every other one knows the name key too.
        self._list_all()
        for number in sorted(self._found.keys() - {0}):
            try:
                return self._open(number).name_key
            except ObjectDamaged as error:
                logger.warning("%s", error)
                problem = problem or error
        if problem is not None:
            raise problem
        return None

    def _open(self, number: int) -> Keyring:
        if number not in self._opened:
            self._opened[number] = self._open_newest(number)
        return self._opened[number]

    def _open_newest(self, number: int) -> Keyring:
        """The newest version that a key at hand opens.

        A version may be damaged, or wrapped by a key to come, while the one before it still lies there.
        """
        if number not in self._found:
            self._look_for(number)
        try:
            return self._first_that_opens(number, self._found.get(number) or self._list_anew(number))
        except ObjectNotFound:
            # Another process replaced it since it was listed.
            return self._first_that_opens(number, self._list_anew(number))

    def _first_that_opens(self, number: int, versions: Sequence[int]) -> Keyring:
        damage: ObjectDamaged | None = None
        missing: KeyMissing | None = None
        for version in versions:
            try:
                return self._read(keyring_key(number, version))
            except ObjectDamaged as error:
                damage = damage or error
            except KeyMissing as error:
                missing = missing or error
        raise (
            missing
            or damage
            or ObjectDamaged(self._tier.name, keyring_key(number, 1), "the keyring is missing on this tier")
        )

    def _read(self, key: ObjectKey) -> Keyring:
        data = self._tier.get(key)
        try:
            head = read_head(data, key)
            self._check_archive(key, head.archive_id)
            archive_key = next((known for known in self._keys if known.id == head.key_id), None)
            if archive_key is None:
                at_hand = ", ".join(known.id.hex() for known in self._keys) or "none"
                raise KeyMissing(
                    self._tier.name, key, f"needs archive key {head.key_id.hex()}; at hand: {at_hand}"
                )
            keyring = unwrapped(data, key, archive_key)
        except FormatError as error:
            raise ObjectDamaged(self._tier.name, key, error.problem) from error
        self._archive_id = keyring.archive_id
        if self._name_key is None:
            self._name_key = keyring.name_key
        elif keyring.name_key != self._name_key:
            raise ObjectDamaged(self._tier.name, key, "is a keyring of another tier")
        return keyring

    def _check_archive(self, key: ObjectKey, found: bytes) -> None:
        if self._archive_id is not None and found != self._archive_id:
            raise KeyMissing(
                self._tier.name, key, f"belongs to archive {found.hex()}, not {self._archive_id.hex()}"
            )

    def _write(self, keyring: Keyring, archive_key: ArchiveKey) -> None:
        """Put a version and read it back.  Raises ObjectExists where another process was first."""
        data = keyring.wrapped(archive_key)
        self._tier.put(keyring.object_key, data, hashlib.sha256(data).hexdigest())
        if self._tier.get(keyring.object_key) != data:
            raise ObjectDamaged(self._tier.name, keyring.object_key, "does not read back as it was put")
        self._opened[keyring.number] = keyring

    def _rewrite(self, number: int, key: ArchiveKey, destroyed: Collection[int] = ()) -> None:
        """Write a version behind all that there are: damaged ones may lie behind the one that opens."""
        versions = self._list_anew(number)
        keyring = self._first_that_opens(number, versions)
        self._write(keyring.following(versions[0] + 1, key, destroyed), key)
        self._list_anew(number)

    def _remove_older(self, number: int) -> int:
        """Delete all versions but the newest, if that opens; returns how many."""
        newest, *older = self._found.get(number) or [0]
        try:
            if not older or self._current(number).version != newest:
                return 0
        except (ObjectDamaged, KeyMissing):
            # None of them opens: told by whoever asked, and left for a person to look at.
            return 0
        for version in older:
            # What it wraps must not be left where a store keeps what was deleted.
            self._tier.erase(keyring_key(number, version))
        self._list_anew(number)
        return len(older)

    def _current(self, number: int) -> Keyring:
        """The newest version that opens, as listed; read only where it is not known."""
        known = self._opened.get(number)
        if known is None or known.version != self._found[number][0]:
            self._opened[number] = known = self._open_newest(number)
        return known

    def _rewrap_all(self, new: ArchiveKey, report: Rewrapped, advance: Callable[[int], None]) -> None:
        self._list_all()
        report.failed.clear()
        for number in sorted(self._found):
            try:
                current = self._current(number)
                if current.key_id != new.id or current.version != self._found[number][0]:
                    self._rewrite(number, new)
                    report.rewritten += 1
                advance(current.stored_bytes)
            except (ObjectDamaged, KeyMissing) as error:
                report.failed.append(str(error))

    def _make_first(self, name_key: bytes | None) -> bytes:
        """Put keyring 0 with a new name key, or with the one that the others know."""
        if self._archive_id is None:
            raise TierError(self._tier.name, "", "the archive is not known: nothing can be sealed here")
        key = self._keys[0]
        keyring = new_keyring(0, self._archive_id, key, name_key or new_name_key(), 0)
        if damaged := self._list_anew(0):
            keyring = keyring.following(damaged[0] + 1, key)
        try:
            self._write(keyring, key)
            if self._list_anew(0)[0] > keyring.version:
                # Others made it and changed the archive key, all since it was looked for.
                self._tier.delete(keyring.object_key)
        except ObjectExists:
            logger.debug("another process made the first keyring of tier %s", self._tier.name)
        self._opened.pop(0, None)
        self._list_anew(0)
        return self._open(0).name_key

    def _make(self) -> None:
        """Make a keyring for objects to come."""
        name_key = self.ensure_name_key()
        with self._lock:
            assert self._archive_id is not None
            count = min(max(self._count, self._expected), MOST_KEYS)
            key, number = self._keys[0], secrets.randbits(64) or 1
            keyring = new_keyring(number, self._archive_id, key, name_key, count)
            self._write(keyring, key)
            try:
                self._first_that_opens(0, self._list_anew(0))
            except ObjectDamaged as error:
                logger.warning("%s", error)
            except TierError:
                # The archive key was changed meanwhile: what is sealed now nobody else could read.
                del self._opened[number]
                self._tier.delete(keyring.object_key)
                raise
        self._count, self._expected = min(2 * count, MOST_KEYS), 0
        self._free = [
            (KeyReference(keyring.number, index), secret)
            for index, secret in reversed(list(enumerate(keyring.data_keys)))
            if secret is not None
        ]

    def _state(self, number: int, versions: Sequence[int]) -> KeyringState:
        version, problem = versions[0], ""
        with self._lock:
            try:
                version = self._first_that_opens(number, versions).version
            except TierError as error:
                problem = error.problem
            key = keyring_key(number, version)
            try:
                head = read_head(self._tier.get(key), key)
            except (FormatError, TierError) as error:
                return KeyringState(number, version, 0, "", len(versions) - 1, problem or str(error))
        return KeyringState(number, version, head.keys, head.key_id.hex(), len(versions) - 1, problem)
