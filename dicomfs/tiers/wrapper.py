"""TierWrapper: a tier around a tier, passing everything on; the base of what adds behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier, TierTraits, TierUsage


class TierWrapper:
    """Passes every call to ``inner``; thread-safe as far as ``inner`` is."""

    def __init__(self, inner: Tier) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """Name of the inner tier."""
        return self._inner.name

    @property
    def traits(self) -> TierTraits:
        """Traits of the inner tier."""
        return self._inner.traits

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put."""
        self._inner.put(key, source, sha256)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        return self._inner.get(key)

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        return self._inner.get_range(key, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        return self._inner.stat(key)

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""
        self._inner.restore(key)

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete."""
        self._inner.delete(key)

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase."""
        self._inner.erase(key)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list."""
        return self._inner.list(prefix)

    def usage(self) -> TierUsage:
        """See Tier.usage."""
        return self._inner.usage()

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local."""
        return self._inner.open_local(key)

    def discard_temporaries(self, older_than: float) -> int:
        """See Tier.discard_temporaries."""
        return self._inner.discard_temporaries(older_than)
