"""Sealing: staged packs are written, synced, read back from the device and compared, byte for byte.

What is compared is every file of the batch: decoded and spliced by the code that serves reads, from the
packs as the device holds them, against the bytes that were accepted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomfs.errors import DicomfsError, TierFull
from dicomfs.format.header import HeaderPackWriter, SeriesPart
from dicomfs.format.pack import PackSummary, PackWriter
from dicomfs.frames import FrameReader
from dicomfs.model import ObjectKey, PackKind
from dicomfs.packing.plan import BatchPlan, mapped
from dicomfs.packs import PackSource
from dicomfs.paths import create_private
from dicomfs.reconstruct import PackedReader
from dicomfs.tiers.base import Tier

_COMPARE_STEP = 8 << 20
SPOOL_MISSING = "the spooled bytes are missing"
SPOOL_ROTTEN = "the spooled bytes no longer match the digest taken when they were accepted"
_CHECK_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A pack that is written and synced, not placed."""

    path: Path
    summary: PackSummary

    @property
    def key(self) -> ObjectKey:
        """Name the object will have on every tier."""
        return self.summary.key


class Staging:
    """The packs of one batch in the staging folder; whatever is not placed goes away with it."""

    def __init__(self, folder: Path, archive_id: bytes) -> None:
        self._folder, self._archive_id = folder, archive_id
        self._paths: list[Path] = []

    def clear(self) -> None:
        """Remove every staged file, of this batch or of one that died."""
        for path in self._folder.iterdir():
            path.unlink()

    def write_pack(self, kind: PackKind, fill: Callable[[PackWriter], None]) -> Staged:
        """Write a pack of segments or chunks; raises `TierFull` when the disk is full."""

        def make(file: BinaryIO) -> PackSummary:
            writer = PackWriter(file, kind, self._archive_id)
            fill(writer)
            return writer.finish()

        return self._write(make)

    def write_headers(self, parts: Sequence[tuple[SeriesPart, Sequence[bytes]]]) -> Staged:
        """Write a header pack; raises `TierFull` when the disk is full."""

        def make(file: BinaryIO) -> PackSummary:
            writer = HeaderPackWriter(file, self._archive_id)
            for part, headers in parts:
                writer.add_part(part, headers)
            return writer.finish()

        return self._write(make)

    def _write(self, make: Callable[[BinaryIO], PackSummary]) -> Staged:
        path = self._folder / f"{os.getpid()}-{len(self._paths)}.part"
        self._paths.append(path)
        try:
            with create_private(path) as file:
                summary = make(file)
                file.flush()
                os.fsync(file.fileno())
                # Read back means from the device: what the page cache holds proves nothing about it.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as problem:
            raise TierFull("staging", path.name, f"cannot be written: {problem.strerror}") from problem
        return Staged(path, summary)


def mismatches(
    tier: Tier,
    packs: Sequence[Staged],
    headers: Staged,
    plan: BatchPlan,
    parts: Sequence[tuple[int, Sequence[int]]],
    pool: ThreadPoolExecutor,
) -> dict[int, str]:
    """Compare every instance of a batch with its accepted bytes; index in the batch -> what is wrong.

    ``parts`` gives, for each part of the header pack, its index there and its instances in the batch.
    """
    staged = {pack.key: pack.path for pack in [*packs, headers]}
    source = PackSource.staged(tier, staged)
    frames = FrameReader(source, _CHECK_CACHE_BYTES)

    def check(part: int, row: int, index: int) -> tuple[int, str]:
        try:
            return index, _difference(source, frames, headers.key, part, row, plan, index)
        except DicomfsError as problem:
            return index, str(problem)

    found = pool.map(
        lambda job: check(*job),
        [(part, row, index) for part, rows in parts for row, index in enumerate(rows)],
    )
    return {index: reason for index, reason in found if reason}


def _difference(
    source: PackSource,
    frames: FrameReader,
    headers: ObjectKey,
    part: int,
    row: int,
    plan: BatchPlan,
    index: int,
) -> str:
    table = source.part(headers, part)
    entry = table.entries[row]
    reader = PackedReader(table, row, source.header_bytes(headers, part, row), frames, source)
    instance = plan.instances[index]
    record = instance.record
    if (entry.size, entry.sha256, entry.mtime_ns) != (record.size, record.sha256, record.mtime_ns):
        return "the instance table differs from what was accepted"
    digest = hashlib.sha256()
    with mapped(instance.path) as accepted:
        for offset in range(0, record.size, _COMPARE_STEP):
            found = reader.read(offset, _COMPARE_STEP)
            if found != accepted[offset : offset + _COMPARE_STEP]:
                return f"bytes from {offset} on differ"
            digest.update(found)
    # The spooled copy itself may have rotted since it was accepted.
    return "" if digest.digest() == record.sha256 else SPOOL_ROTTEN
