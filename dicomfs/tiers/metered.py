"""MeteredTier: what a tier was asked for, how much and how long, for status and metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier
from dicomfs.tiers.wrapper import TierWrapper


@dataclass(frozen=True, slots=True)
class Meter:
    """Totals of one operation since the tier was opened."""

    calls: int = 0
    errors: int = 0
    """Calls that ended in a TierError, "no such object" included."""
    payload_bytes: int = 0
    """Object bytes sent or received."""
    seconds: float = 0.0
    """Sum over calls; calls at the same time count each."""


class MeteredTier(TierWrapper):
    """Counts calls by operation: the names of Tier's methods.  One lock guards the totals."""

    def __init__(self, inner: Tier, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(inner)
        self._clock = clock
        self._lock = threading.Lock()
        self._meters: dict[str, Meter] = {}

    def meters(self) -> dict[str, Meter]:
        """Totals by operation, as of now."""
        with self._lock:
            return dict(self._meters)

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put."""
        with self._measured("put") as count:
            # Asked before: once it is put, the file may go.  That it is not there, the put tells.
            size = len(source) if isinstance(source, bytes) else _size_of(source)
            self._inner.put(key, source, sha256)
            count(size)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        with self._measured("get") as count:
            data = self._inner.get(key)
            count(len(data))
        return data

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        with self._measured("get_range") as count:
            data = self._inner.get_range(key, wanted)
            count(len(data))
        return data

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        with self._measured("stat"):
            return self._inner.stat(key)

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete."""
        with self._measured("delete"):
            self._inner.delete(key)

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase."""
        with self._measured("erase"):
            self._inner.erase(key)

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""
        with self._measured("restore"):
            self._inner.restore(key)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list.  Time counts until the first object comes: the rest is up to who takes them."""
        with self._measured("list"):
            listing = iter(self._inner.list(prefix))
            first = next(listing, None)
        if first is None:
            return
        yield first
        try:
            yield from listing
        except TierError:
            self._add("list", Meter(errors=1))
            raise

    @contextmanager
    def _measured(self, operation: str) -> Iterator[Callable[[int], None]]:
        moved: list[int] = []
        start, errors = self._clock(), 0
        try:
            yield moved.append
        except TierError:
            errors = 1
            raise
        finally:
            self._add(operation, Meter(1, errors, sum(moved), self._clock() - start))

    def _add(self, operation: str, more: Meter) -> None:
        with self._lock:
            old = self._meters.get(operation, Meter())
            self._meters[operation] = Meter(
                old.calls + more.calls,
                old.errors + more.errors,
                old.payload_bytes + more.payload_bytes,
                old.seconds + more.seconds,
            )


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
