"""ColdTier: a tier whose packs of frames and streams can be in a cold storage class."""

from __future__ import annotations

from dataclasses import replace

from dicomfs.archive import Archive
from dicomfs.errors import ObjectCold
from dicomfs.model import ObjectKey, PackKind
from dicomfs.tier_set import OpenTier
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier
from dicomfs.tiers.wrapper import TierWrapper

_BULK = tuple(f"{kind.prefix}/" for kind in PackKind if kind is not PackKind.HEADER)


class ColdTier(TierWrapper):
    """Reads of what is cold fail; a restore ends when the test says so."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self.frozen = True
        self.restoring: set[ObjectKey] = set()
        self.restored: set[ObjectKey] = set()
        self.asked: list[ObjectKey] = []
        """Each call of restore."""
        self.stats = 0

    def thaw(self) -> None:
        """All restores under way are done."""
        self.restored |= self.restoring
        self.restoring.clear()

    def get(self, key: ObjectKey) -> bytes:
        self._require_thawed(key)
        return self._inner.get(key)

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self._require_thawed(key)
        return self._inner.get_range(key, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        self.stats += 1
        cold = self._is_cold(key)
        return replace(self._inner.stat(key), cold=cold, restoring=cold and key in self.restoring)

    def restore(self, key: ObjectKey) -> None:
        self.asked.append(key)
        if self._is_cold(key):
            self.restoring.add(key)

    def _is_cold(self, key: ObjectKey) -> bool:
        return self.frozen and key.startswith(_BULK) and key not in self.restored

    def _require_thawed(self, key: ObjectKey) -> None:
        if self._is_cold(key):
            raise ObjectCold(self.name, key, restoring=key in self.restoring)


def freeze(archive: Archive, name: str) -> ColdTier:
    """Have a tier of an open archive be cold from now on."""
    opened = archive.tiers.opened(name)
    cold = ColdTier(opened.tier)
    archive.tiers._opened[name] = OpenTier(cold, opened.ownership)
    return cold
