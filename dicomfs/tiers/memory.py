"""MemoryTier: the reference implementation of the contract, for tests and trials; nothing survives it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dicomfs.errors import ObjectExists, ObjectNotFound, TierError, TierFull
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, TierTraits, TierUsage, check_key, check_prefix


class MemoryTier:
    """Objects in a dictionary.  One lock guards it; no method holds it while copying bytes."""

    def __init__(self, name: str = "memory", capacity: int | None = None) -> None:
        self.name = name
        self.traits = TierTraits(local=False, trusted=True, connections=8, range_cost_bytes=0)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._objects: dict[ObjectKey, tuple[bytes, int]] = {}

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put."""
        check_key(key, self.name)
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            raise TierError(self.name, key, "source can't be read") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise TierError(self.name, key, "source does not match its digest")
        with self._lock:
            present = self._objects.get(key)
            if present is not None:
                if present[0] != data:
                    raise ObjectExists(self.name, key)
                return
            if self._capacity is not None and self._used() + len(data) > self._capacity:
                raise TierFull(self.name, key, "no space left")
            self._objects[key] = (data, time.time_ns())

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        return self._object(key)[0]

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        return self._object(key)[0][wanted.offset : wanted.offset + wanted.length]

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        data, mtime_ns = self._object(key)
        return ObjectStat(len(data), mtime_ns)

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore: nothing is ever cold here."""
        self._object(key)

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete."""
        check_key(key, self.name)
        with self._lock:
            self._objects.pop(key, None)

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase: nothing is kept."""
        self.delete(key)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list."""
        start = f"{check_prefix(prefix, self.name)}/" if prefix else ""
        with self._lock:
            found = sorted(
                (key, ObjectStat(len(data), mtime_ns))
                for key, (data, mtime_ns) in self._objects.items()
                if key.startswith(start)
            )
        return iter(found)

    def usage(self) -> TierUsage:
        """See Tier.usage."""
        with self._lock:
            used = self._used()
        return TierUsage(self._capacity, None if self._capacity is None else self._capacity - used)

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local: there are no files here."""
        self._object(key)
        return None

    def discard_temporaries(self, older_than: float) -> int:  # noqa: ARG002  of the protocol
        """See Tier.discard_temporaries: a put that dies leaves nothing here."""
        return 0

    def _used(self) -> int:
        return sum(len(data) for data, _ in self._objects.values())

    def _object(self, key: ObjectKey) -> tuple[bytes, int]:
        check_key(key, self.name)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectNotFound(self.name, key)
        return found
