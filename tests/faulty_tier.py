"""FaultyTier: a tier that fails when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier
from dicomfs.tiers.wrapper import TierWrapper

Fault = Callable[[], TierError]


class FaultyTier(TierWrapper):
    """Raises the next of ``faults`` before a call reaches the inner tier, or after with ``late``.

    A late fault is what a lost answer looks like: the work was done.
    """

    def __init__(self, inner: Tier, faults: list[TierError] | None = None, *, late: bool = False) -> None:
        super().__init__(inner)
        self.faults = faults or []
        self.late = late
        self.calls = 0

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        self._before()
        self._inner.put(key, source, sha256)
        self._after()

    def get(self, key: ObjectKey) -> bytes:
        self._before()
        return self._inner.get(key)

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self._before()
        return self._inner.get_range(key, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        self._before()
        return self._inner.stat(key)

    def delete(self, key: ObjectKey) -> None:
        self._before()
        self._inner.delete(key)
        self._after()

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        self._before()
        return self._inner.list(prefix)

    def _before(self) -> None:
        self.calls += 1
        if self.faults and not self.late:
            raise self.faults.pop(0)

    def _after(self) -> None:
        if self.faults and self.late:
            raise self.faults.pop(0)
