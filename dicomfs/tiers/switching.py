"""SwitchingTier: a tier in the house whose objects may lie in plain bytes, encrypted, or some either way.

Owns where an object is looked for while encryption is switched on.  The tier itself says whether it is: from
its first keyring on everybody encrypts what is put, whatever his settings say, and plain bytes become fewer.
Who moves them is `dicomfs.encrypting`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dicomfs.crypto.keyring import KEYRING_PREFIX
from dicomfs.errors import ObjectExists, ObjectNotFound
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier, TierTraits, check_prefix
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.wrapper import TierWrapper

_STEP = 8 << 20
T = TypeVar("T")


class SwitchingTier(TierWrapper):
    """Reads plain objects of ``inner`` and encrypted ones; puts plain ones while it has no keyring.

    Thread-safe.  ``seal`` opens the same tier for encrypted objects; it is called when that is first needed,
    and raises UsageError where no key is at hand: then what is plain can be read, and nothing be put.
    An object is moved by putting the encrypted one first, so who misses the plain one finds it.
    """

    def __init__(self, inner: Tier, seal: Callable[[], SealedTier]) -> None:
        super().__init__(inner)
        self._seal = seal
        self._sealed: SealedTier | None = None
        self._switched = False
        self._lock = threading.Lock()

    @property
    def traits(self) -> TierTraits:
        """Those of the inner tier; a put may be that of another form of the object."""
        return replace(self._inner.traits, proves_puts=False)

    @property
    def is_switched(self) -> bool:
        """Whether what is put is encrypted.  Raises TierError."""
        if not self._switched:
            self._switched = any(True for _ in self._inner.list(KEYRING_PREFIX))
        return self._switched

    @property
    def sealed(self) -> SealedTier:
        """The same tier, encrypted objects alone.  Raises UsageError without a key."""
        with self._lock:
            if self._sealed is None:
                self._sealed = self._seal()
            return self._sealed

    @property
    def plain(self) -> Tier:
        """The same tier, its objects as they lie there."""
        return self._inner

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put."""
        if not self.is_switched:
            self._inner.put(key, source, sha256)
            return
        if self._plain_digest(key) not in (None, sha256):
            raise ObjectExists(self.name, key)
        self.sealed.put(key, source, sha256)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        return self._either(lambda tier: tier.get(key))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        return self._either(lambda tier: tier.get_range(key, wanted))

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        return self._either(lambda tier: tier.stat(key))

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""
        self._either(lambda tier: tier.restore(key))

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local."""
        return self._either(lambda tier: tier.open_local(key))

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete: in both forms."""
        self._inner.delete(key)
        if self.is_switched:
            self.sealed.delete(key)

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase: in both forms."""
        self._inner.erase(key)
        if self.is_switched:
            self.sealed.erase(key)

    def destroy(self, keys: Collection[ObjectKey]) -> None:
        """See SealedTier.destroy: in both forms; what lay there in plain bytes has no key to be removed."""
        for key in keys:
            self._inner.erase(key)
        if self.is_switched:
            self.sealed.destroy(keys)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list."""
        check_prefix(prefix, self.name)
        if not self.is_switched:
            return self._inner.list(prefix)
        # Plain ones first: what is moved meanwhile is then seen in one of both forms.
        found = dict(self.sealed.strangers(prefix))
        found |= dict(self.sealed.list(prefix))
        return iter(sorted(found.items()))

    def _either(self, ask: Callable[[Tier], T]) -> T:
        try:
            return ask(self._inner)
        except ObjectNotFound:
            if not self.is_switched:
                raise
        return ask(self.sealed)

    def _plain_digest(self, key: ObjectKey) -> str | None:
        """SHA-256 of the plain object of a name; None where there is none."""
        digest, offset = hashlib.sha256(), 0
        try:
            size = self._inner.stat(key).size
            while offset < size:
                piece = self._inner.get_range(key, ByteRange(offset, _STEP))
                digest.update(piece)
                offset += len(piece) or size
        except ObjectNotFound:
            return None
        return digest.hexdigest()
