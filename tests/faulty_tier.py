"""FaultyTier: a tier that fails when told to, in each way that real ones do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier, TierUsage
from dicomfs.tiers.wrapper import TierWrapper


class FaultyTier(TierWrapper):
    """Raises the next of ``faults`` before a call reaches the inner tier, or after it with ``late``.

    A late fault is what a lost answer looks like: the work was done.  The other faults are attributes, which
    may be changed at any time.
    """

    def __init__(self, inner: Tier, faults: list[TierError] | None = None, *, late: bool = False) -> None:
        super().__init__(inner)
        self.faults = faults or []
        self.late = late
        self.calls = 0
        self.on_call: Callable[[str, str], None] = lambda _operation, _key: None
        """Called first, with operation and key (or prefix): may wait (slow), raise or count."""
        self.spoils: list[Callable[[bytes], bytes]] = []
        """What becomes of the bytes of the next reads, one each: ``truncated``, ``flipped``."""
        self.lost_deletes = 0
        """How many of the next deletes are answered as done and are not."""
        self.lagging = False
        """Whether listings show what was there when ``lag`` was called, whatever was put or deleted since."""
        self._listed: list[tuple[ObjectKey, ObjectStat]] | None = None

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        self._before("put", key)
        self._inner.put(key, source, sha256)
        self._after()

    def get(self, key: ObjectKey) -> bytes:
        self._before("get", key)
        return self._spoilt(self._inner.get(key))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self._before("get_range", key)
        return self._spoilt(self._inner.get_range(key, wanted))

    def stat(self, key: ObjectKey) -> ObjectStat:
        self._before("stat", key)
        return self._inner.stat(key)

    def restore(self, key: ObjectKey) -> None:
        self._before("restore", key)
        self._inner.restore(key)
        self._after()

    def delete(self, key: ObjectKey) -> None:
        self._before("delete", key)
        if self.lost_deletes:
            self.lost_deletes -= 1
        else:
            self._inner.delete(key)
        self._after()

    def erase(self, key: ObjectKey) -> None:
        self._before("erase", key)
        if self.lost_deletes:
            self.lost_deletes -= 1
        else:
            self._inner.erase(key)
        self._after()

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        self._before("list", prefix)
        if not self.lagging:
            return self._inner.list(prefix)
        return (
            item for item in self._listed or [] if f"{item[0]}/".startswith(f"{prefix}/" if prefix else "")
        )

    def usage(self) -> TierUsage:
        self._before("usage", "")
        return self._inner.usage()

    def open_local(self, key: ObjectKey) -> Path | None:
        self._before("open_local", key)
        return self._inner.open_local(key)

    def lag(self) -> None:
        """From now on, listings show what is there now; set ``lagging`` to False to let them catch up."""
        self._listed = list(self._inner.list(""))
        self.lagging = True

    def _before(self, operation: str, key: str) -> None:
        self.calls += 1
        self.on_call(operation, key)
        if self.faults and not self.late:
            raise self.faults.pop(0)

    def _after(self) -> None:
        if self.faults and self.late:
            raise self.faults.pop(0)

    def _spoilt(self, data: bytes) -> bytes:
        return self.spoils.pop(0)(data) if self.spoils else data


def truncated(data: bytes) -> bytes:
    """The first half: a body that broke off."""
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"?"
