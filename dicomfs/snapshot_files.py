"""Snapshots of the catalog on one tier: which there are, the newest first, and reading one.

Owns that nothing is read from one whose bytes do not match its name.  What they are for is up to
`dicomfs.snapshots` and `dicomfs.recover`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.keys import SNAPSHOT_PREFIX
from dicomfs.format.snapshot import About, SnapshotReader
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, Tier
from dicomfs.tiers.fetching import fetch_into, unnamed_file

_KEY = re.compile(SNAPSHOT_PREFIX + r"/([0-9a-f]{2})/\1[0-9a-f]{62}")
_FIRST_READ = 4096
"""Bytes that hold what a snapshot says of itself."""


@dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """A snapshot as it lies on a tier; its bytes are not proven."""

    key: ObjectKey
    size: int
    archive_id: bytes
    about: About

    @property
    def age_rank(self) -> tuple[int, int]:
        """The greater, the newer: a journal only grows, while clocks may go back."""
        return self.about.sequence, self.about.time_ns


@dataclass(frozen=True, slots=True)
class BadSnapshot:
    """One that says nothing of itself that could be understood."""

    key: ObjectKey
    problem: FormatError


def find_snapshots(tier: Tier) -> tuple[list[FoundSnapshot], list[BadSnapshot]]:
    """The snapshots of a tier, the newest first, and those that are none.

    Raises:
        TierError: the tier cannot be asked.
    """
    found, bad = [], []
    for key, status in tier.list(SNAPSHOT_PREFIX):
        if _KEY.fullmatch(key) is None:
            continue
        try:
            reader = _looked_at(tier, key, status.size)
        except FormatError as problem:
            bad.append(BadSnapshot(key, problem))
        else:
            found.append(FoundSnapshot(key, status.size, reader.archive_id, reader.about))
    return sorted(found, key=lambda one: one.age_rank, reverse=True), bad


def _looked_at(tier: Tier, key: ObjectKey, size: int) -> SnapshotReader:
    start = tier.get_range(key, ByteRange(0, _FIRST_READ))

    def read(offset: int, length: int) -> bytes:
        if offset + length <= len(start):
            return start[offset : offset + length]
        return tier.get_range(key, ByteRange(offset, length))

    return SnapshotReader(read, size, key)


@contextlib.contextmanager
def opened_snapshot(tier: Tier, found: FoundSnapshot, folder: Path) -> Iterator[SnapshotReader]:
    """A snapshot to read; all of it is fetched into a file without a name in ``folder`` and proven first.

    Raises:
        TierError: it cannot be had; TierFull where there is no room for it.
        FormatError: its bytes do not match its name.
    """
    with unnamed_file(folder, found.key) as (descriptor, _):
        if fetch_into(descriptor, tier, found.key, found.size) != found.key.rsplit("/", 1)[1]:
            raise DamagedError(found.key, "its bytes do not match its name")
        yield SnapshotReader(
            lambda offset, length: os.pread(descriptor, length, offset), found.size, found.key
        )
