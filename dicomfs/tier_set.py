"""The tiers of one archive, nearest first: which there are, and how each is opened.

Owns names and order.  A tier that is far away is opened when it is first needed: who only lists the archive
needs neither network nor key.  What lies where is the catalog's to know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from dicomfs.errors import UsageError
from dicomfs.model import ObjectKey
from dicomfs.ownership import Ownership
from dicomfs.tiers.base import Tier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.switching import SwitchingTier

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class OpenTier:
    """A tier as the archive uses it, and whose it is."""

    tier: Tier
    """Objects under their names in plain bytes, whatever is stored."""
    ownership: Ownership | None
    """Whose it is; None for the archive's own folder."""
    meter: MeteredTier | None = None
    """What was asked of the store itself, each attempt and what encryption adds included."""


class TierSet:
    """Opens tiers by name, once each.  Thread-safe."""

    def __init__(self, local: Tier, others: Mapping[str, Callable[[], OpenTier]] | None = None) -> None:
        """``others`` in the order of their distance."""
        self.local = local
        self._others = dict(others or {})
        self._opened: dict[str, OpenTier] = {LOCAL: OpenTier(local, None)}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """All tiers, nearest first; the local one is the first."""
        return (LOCAL, *self._others)

    @property
    def remote(self) -> tuple[str, ...]:
        """All tiers but the local one, nearest first."""
        return tuple(self._others)

    def known(self, name: str) -> None:
        """Raise UsageError where the archive has no tier of this name; nothing is opened."""
        if name not in self.names:
            known = ", ".join(self.names)
            raise UsageError(f"this archive has no tier {name!r}; it has {known}")

    def __getitem__(self, name: str) -> Tier:
        """The tier of a name.

        Raises:
            UsageError: the archive has none of this name, or what it needs (a key) is missing.
            TierError: it cannot be opened.
        """
        return self.opened(name).tier

    def writable(self, name: str) -> Tier:
        """The tier of a name, to put and delete there.

        Raises:
            UsageError: as ``[]`` does, and where the tier is not this archive's to write.
            TierError: it cannot be asked.
        """
        found = self.opened(name)
        if found.ownership is not None:
            found.ownership.require()
        return found.tier

    def destroy(self, name: str, keys: Collection[ObjectKey]) -> None:
        """Delete objects for ever, older versions that a store keeps too.

        From a tier that encrypts, their keys go first, so that no copy is of use.

        Raises as `writable` does, and where something cannot be deleted.
        """
        tier = self.writable(name)
        if isinstance(tier, SealedTier | SwitchingTier):
            tier.destroy(keys)
            return
        for key in keys:
            tier.erase(key)

    def opened(self, name: str) -> OpenTier:
        """The tier of a name with its owner; raises as ``[]`` does."""
        with self._lock:
            found = self._opened.get(name)
            if found is not None:
                return found
            self.known(name)
            self._opened[name] = self._others[name]()
            return self._opened[name]
