"""Sealed tiers in memory, and what is done to the bytes beneath them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomfs.crypto.keyring import parse_keyring_key
from dicomfs.crypto.keys import ArchiveKey
from dicomfs.crypto.segments import KeyReference, read_reference
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.wrapper import TierWrapper

ARCHIVE_ID = bytes(range(16))
OLD = ArchiveKey(bytes(range(32)))
NEW = ArchiveKey(bytes(range(32, 64)))


def sealed(inner: Tier, *keys: ArchiveKey) -> SealedTier:
    """A new instance, as in a new process."""
    return SealedTier(inner, ARCHIVE_ID, keys or [OLD])


def put(tier: Tier, key: str, data: bytes) -> ObjectKey:
    tier.put(ObjectKey(key), data, hashlib.sha256(data).hexdigest())
    return ObjectKey(key)


def by_digest(kind: str, data: bytes) -> ObjectKey:
    digest = hashlib.sha256(data).hexdigest()
    return ObjectKey(f"{kind}/{digest[:2]}/{digest}")


def contents(tier: Tier) -> dict[ObjectKey, bytes]:
    return {key: tier.get(key) for key, _ in tier.list("")}


def names(inner: Tier, *, keyrings: bool = False) -> list[ObjectKey]:
    """Names of stored objects, or of keyrings."""
    return [key for key, _ in inner.list("") if key.startswith("keyring/") == keyrings]


def overwrite(inner: MemoryTier, name: ObjectKey, data: bytes) -> None:
    inner.delete(name)
    put(inner, name, data)


def copied(inner: MemoryTier) -> MemoryTier:
    other = MemoryTier()
    for name, data in contents(inner).items():
        put(other, name, data)
    return other


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it."""


class DyingTier(TierWrapper):
    """Kills before or after the call of number ``fatal``, counted from 0."""

    def __init__(self, inner: Tier, fatal: int, *, after: bool) -> None:
        super().__init__(inner)
        self._fatal, self._after, self.calls = fatal, after, 0

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        self._step(lambda: self._inner.put(key, source, sha256))

    def get(self, key: ObjectKey) -> bytes:
        self._step(lambda: None)
        return self._inner.get(key)

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self._step(lambda: None)
        return self._inner.get_range(key, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        self._step(lambda: None)
        return self._inner.stat(key)

    def delete(self, key: ObjectKey) -> None:
        self._step(lambda: self._inner.delete(key))

    def erase(self, key: ObjectKey) -> None:
        self._step(lambda: self._inner.erase(key))

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        self._step(lambda: None)
        return self._inner.list(prefix)

    def _step(self, work: Callable[[], None]) -> None:
        fatal = self.calls == self._fatal
        self.calls += 1
        if fatal and not self._after:
            raise Killed
        work()
        if fatal:
            raise Killed


def deaths(make: Callable[[], MemoryTier], work: Callable[[Tier], object]) -> Iterator[MemoryTier]:
    """What is left of a tier when the work on it was killed at each of its calls; last, when it was not."""
    for after in (False, True):
        fatal, died = 0, True
        while died:
            inner = make()
            dying = DyingTier(inner, fatal, after=after)
            try:
                work(dying)
                died = False
            except Killed:
                fatal += 1
            yield inner
        assert fatal > 3, "the work makes no calls"


class Hooked(TierWrapper):
    """Calls ``before_put`` or ``after_put`` with the key of each put."""

    def __init__(
        self,
        inner: Tier,
        before_put: Callable[[ObjectKey], None] = lambda _: None,
        after_put: Callable[[ObjectKey], None] = lambda _: None,
    ) -> None:
        super().__init__(inner)
        self._before_put, self._after_put = before_put, after_put

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        self._before_put(key)
        super().put(key, source, sha256)
        self._after_put(key)


def filled(objects: int = 3) -> MemoryTier:
    """A tier of objects put by as many processes: each has a keyring of its own."""
    inner = MemoryTier()
    for number in range(objects):
        put(sealed(inner), by_digest("pixel", bytes([number])), bytes([number]))
    return inner


def versions(inner: Tier) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in names(inner, keyrings=True):
        parsed = parse_keyring_key(name)
        assert parsed is not None
        found.setdefault(parsed[0], []).append(parsed[1])
    return found


def reference_of(inner: Tier, name: ObjectKey) -> KeyReference:
    return read_reference(inner.get(name), name)[0]
