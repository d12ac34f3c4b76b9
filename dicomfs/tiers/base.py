"""The contract that every tier fulfils, and the grammar of object keys.

Owns the protocol, its value types and key validation.  One suite, tests/contract/test_tiers.py, runs
against every implementation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicomfs.errors import TierError
from dicomfs.model import ObjectKey

_STEP = 8 << 20
LEFT_BEHIND_SECONDS = 86400.0
"""A put that wrote nothing for so long died: see `Tier.discard_temporaries`."""

MAX_KEY_BYTES = 200
_COMPONENT = r"[a-z0-9_-][a-z0-9._-]*"
_KEY = re.compile(rf"{_COMPONENT}(/{_COMPONENT})*")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``offset``; both at least 0."""

    offset: int
    length: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 0:
            raise TierError("any", "", f"impossible range {self.offset}+{self.length}")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a tier says of an object without reading it."""

    size: int
    """Bytes."""
    mtime_ns: int
    """When the tier stored it, nanoseconds since 1970; its own clock."""
    cold: bool = False
    """It can't be read before it is restored."""
    restoring: bool = False
    """It is cold, and a restore is under way."""


@dataclass(frozen=True, slots=True)
class TierUsage:
    """Space of a tier, in bytes; None where it is not known or has no limit."""

    total: int | None
    free: int | None


@dataclass(frozen=True, slots=True)
class TierTraits:
    """How tiers differ, as data: nobody asks for a tier's class."""

    local: bool
    """Reads take microseconds; objects may be had as files (``open_local``)."""
    trusted: bool
    """Inside the house: objects may be stored unencrypted."""
    connections: int
    """Requests worth making at the same time."""
    range_cost_bytes: int
    """Bytes whose transfer takes as long as starting a request; below it, reading on beats a new request."""
    proves_puts: bool = False
    """A put ends with the proof that the store has the bytes: who needs one does not read them back again."""


class Tier(Protocol):
    """A store of immutable objects under keys.

    All methods may be called from several threads at the same time.  No method retries: TransientTierError
    says that a retry makes sense, and the retry wrapper is the one place that does so; therefore every method
    is idempotent.  (A put that takes many requests may repeat one of them, by the same policy.)  Any failure
    is a TierError.  Keys are validated by each method (``check_key``).
    """

    @property
    def name(self) -> str:
        """For messages and placement records: ``local``, ``laboratory``, ``external``."""
        ...

    @property
    def traits(self) -> TierTraits:
        """Differences from other tiers."""
        ...

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """Store an object if the key is free; durable when it returns, never visible in part.

        ``sha256`` is the hex digest of the bytes; what arrives must match it.  The same bytes under the key
        already: nothing to do.  Raises ObjectExists for other bytes there, TierFull, TierError (also when
        ``source`` does not match ``sha256``).  A ``Path`` may be linked instead of copied: its bytes must not
        change afterwards.  When it fails, nothing is stored under the key that was not there before, except
        after TransientTierError, where either outcome is possible.
        """
        ...

    def get(self, key: ObjectKey) -> bytes:
        """All bytes of a small object; ObjectNotFound, ObjectCold.  The caller knows that it is small."""
        ...

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """The bytes of the range; fewer only when the object ends before.  ObjectNotFound, ObjectCold."""
        ...

    def stat(self, key: ObjectKey) -> ObjectStat:
        """Size and time of an object; ObjectNotFound."""
        ...

    def restore(self, key: ObjectKey) -> None:
        """Ask for a cold object to be made readable; nothing to do when it is, or is asked for already.

        Returns at once: ``stat`` tells when it can be read, hours later.  ObjectNotFound.
        """
        ...

    def delete(self, key: ObjectKey) -> None:
        """Remove an object, durably; nothing to do when there is none."""
        ...

    def erase(self, key: ObjectKey) -> None:
        """As ``delete``, and whatever the store keeps besides of an object that was deleted: its versions.

        TierError where it keeps them all the same.
        """
        ...

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """All objects whose key begins with the folder ``prefix`` (no trailing slash; empty: all), by key.

        Objects put or deleted meanwhile may or may not be listed; others are listed exactly once.
        """
        ...

    def usage(self) -> TierUsage:
        """Space of the tier, where known."""
        ...

    def open_local(self, key: ObjectKey) -> Path | None:
        """A file with exactly the object's bytes, to be read only; None where tiers have no files.

        ObjectNotFound.  The file may be unlinked by a later ``delete``; open descriptors stay valid.
        """
        ...

    def discard_temporaries(self, older_than: float) -> int:
        """Remove what puts that died left behind ``older_than`` seconds ago or earlier; returns how many.

        What a put that is under way has written goes too when it is as old: ask for less than a day only
        where no other process puts.
        """
        ...


def check_key(key: str, tier: str) -> str:
    """The key itself when it follows the grammar, else TierError.

    - ASCII lower case, digits and ``._-``: the same on case-insensitive and normalising file systems.
    - Relative, no empty component: can't leave the tier's folder, and ``a//b`` is not ``a/b`` twice.
    - No component begins with a dot: no ``..``, and dot names are free for the tier's own files.
    - At most 200 bytes: fits every object store and path limit with a prefix in front.
    """
    if len(key) > MAX_KEY_BYTES or _KEY.fullmatch(key) is None:
        raise TierError(tier, ascii(key[:MAX_KEY_BYTES]), "impossible object key")
    return key


def pieces_of(tier: Tier, key: ObjectKey, size: int) -> Iterator[bytes]:
    """The bytes of an object of this size, in order, at most 8 MiB each; raises as `Tier.get_range` does."""
    for offset in range(0, size, _STEP):
        yield tier.get_range(key, ByteRange(offset, min(_STEP, size - offset)))


def check_prefix(prefix: str, tier: str) -> str:
    """As ``check_key`` for the argument of ``list``, which may be empty."""
    return check_key(prefix, tier) if prefix else prefix
