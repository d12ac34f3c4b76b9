"""Sealing: staged packs are written, synced, read back from the device and compared.

What is compared is every file of the batch: decoded and spliced by the code that serves reads, from the
packs as the device holds them, with the SHA-256 that was taken when it was accepted.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomfs.errors import DicomfsError, TierFull
from dicomfs.format.header import HeaderPackWriter, SeriesPart, may_share_text, needed_features
from dicomfs.format.header_blocks import ChooseText
from dicomfs.format.pack import PackSummary, PackWriter
from dicomfs.format.pack_notes import StoodFor
from dicomfs.format.shared_texts import FEATURE as TEXTS
from dicomfs.format.text_pack import write_text
from dicomfs.frames import FrameReader
from dicomfs.model import ObjectKey, PackKind
from dicomfs.packing.plan import BatchPlan, InstancePlan
from dicomfs.packing.run import PackRun
from dicomfs.packing.spooled import UnreadableFile, spooled_bytes
from dicomfs.packs import PackSource, Placed
from dicomfs.paths import create_private
from dicomfs.reconstruct import PackedReader
from dicomfs.tiers.base import Tier

_COMPARE_STEP = 4 << 20
_TOGETHER_BYTES = 8 << 20
"""Raw bytes compared by one thread in one go: about a segment, so that threads rarely want the same one."""
STAGING = "staging"
"""What a full disk is called where packs are written before they are placed."""
SPOOL_MISSING = "the spooled bytes are missing"
SPOOL_ROTTEN = "the spooled bytes no longer match the digest taken when they were accepted"
_CHECK_CACHE_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A pack that is written and synced, not placed."""

    path: Path
    summary: PackSummary

    @property
    def key(self) -> ObjectKey:
        """Name the object will have on every tier."""
        return self.summary.key


def clear_staging(folder: Path) -> None:
    """Remove every staged file; nobody must be packing."""
    for path in folder.iterdir():
        path.unlink()


class Staging:
    """The packs of one batch in the staging folder; whatever is not placed goes away with it."""

    def __init__(self, folder: Path, archive_id: bytes, profile: str = "") -> None:
        """``profile`` is noted in packs of frames."""
        self._folder, self._archive_id, self._profile = folder, archive_id, profile
        self._paths: list[Path] = []

    def clear(self) -> None:
        """Remove the staged files of this batch."""
        while self._paths:
            self._paths.pop().unlink(missing_ok=True)

    def write_pack(
        self, kind: PackKind, fill: Callable[[PackWriter], None], stands_for: Sequence[StoodFor] = ()
    ) -> Staged:
        """Write a pack of segments or chunks; raises `TierFull` when the disk is full."""
        profile = "" if kind is PackKind.OPAQUE else self._profile

        def make(file: BinaryIO) -> PackSummary:
            writer = PackWriter(file, kind, self._archive_id, profile=profile, stands_for=stands_for)
            fill(writer)
            return writer.finish()

        return self._write(make)

    def write_text(self, data: bytes) -> Staged:
        """Write a text pack; raises `TierFull` when the disk is full."""
        return self._write(lambda file: write_text(file, self._archive_id, data))

    def write_headers(
        self, parts: Sequence[tuple[SeriesPart, Sequence[bytes]]], choose: ChooseText
    ) -> tuple[Staged, list[SeriesPart]]:
        """Write a header pack; the parts as they are in it.  Raises `TierFull` when the disk is full."""
        features = list(needed_features([part for part, _ in parts]))
        if any(may_share_text(headers) for _, headers in parts):
            features.append(TEXTS)
        written: list[SeriesPart] = []

        def make(file: BinaryIO) -> PackSummary:
            writer = HeaderPackWriter(file, self._archive_id, features, choose)
            for part, headers in parts:
                writer.add_part(part, headers)
            summary = writer.finish()
            written.extend(writer.parts)
            return summary

        return self._write(make), written

    def _write(self, make: Callable[[BinaryIO], PackSummary]) -> Staged:
        path = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.part"
        self._paths.append(path)
        try:
            with create_private(path) as file:
                summary = make(file)
                file.flush()
                os.fsync(file.fileno())
                # Read back means from the device: what the page cache holds proves nothing about it.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as problem:
            raise TierFull(STAGING, path.name, f"cannot be written: {problem.strerror}") from problem
        return Staged(path, summary)


def mismatches(
    tier: Tier,
    packs: Sequence[Staged],
    headers: Staged,
    plan: BatchPlan,
    parts: Sequence[tuple[int, Sequence[int]]],
    run: PackRun,
    placed: Placed,
) -> dict[int, str]:
    """Compare every instance of a batch with its accepted bytes; index in the batch -> what is wrong.

    ``parts`` gives, for each part of the header pack, its index there and its instances in the batch;
    ``placed`` what older packs are read by.

    Raises:
        Stopped: somebody asked to stop.
    """
    staged = {pack.key: pack.path for pack in [*packs, headers]}
    with closing(
        PackSource.staged(tier, staged, lambda key: key if key in staged else placed(key))
    ) as source:
        return _mismatches(source, headers.key, plan, parts, run)


def _mismatches(
    source: PackSource,
    headers: ObjectKey,
    plan: BatchPlan,
    parts: Sequence[tuple[int, Sequence[int]]],
    run: PackRun,
) -> dict[int, str]:
    def check(jobs: Sequence[_Job]) -> list[tuple[int, str]]:
        found = []
        for part, row, index in jobs:
            run.check()
            try:
                found.append((index, _difference(source, frames, headers, part, row, plan, index)))
            except DicomfsError as problem:
                found.append((index, str(problem)))
        return found

    jobs = [
        (part, row, indexes[row]) for part, indexes in parts for row in _as_stored(source.part(headers, part))
    ]
    with closing(FrameReader(source, _CHECK_CACHE_BYTES)) as frames:
        checked = run.pool.map(check, _together(plan, jobs))
        return {index: reason for found in checked for index, reason in found if reason}


_Job = tuple[int, int, int]
"""Part of the header pack, row in it, instance in the batch."""


def _as_stored(table: SeriesPart) -> list[int]:
    """The rows of a part in the order of their frames: each segment is decoded once, and soon forgotten."""
    return sorted(range(len(table.entries)), key=lambda row: table.entries[row].order)


def _together(plan: BatchPlan, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Jobs in runs of about a segment."""
    run: list[_Job] = []
    size = 0
    for job in jobs:
        run.append(job)
        size += plan.instances[job[2]].record.size
        if size >= _TOGETHER_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run


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
    for offset in range(0, record.size, _COMPARE_STEP):
        digest.update(reader.read(offset, _COMPARE_STEP))
    return "" if digest.digest() == record.sha256 else _blame(instance)


def _blame(instance: InstancePlan) -> str:
    """Why other bytes come back: the spooled copy itself may have rotted since it was accepted."""
    try:
        with spooled_bytes(instance.path) as accepted:
            rotten = hashlib.sha256(accepted).digest() != instance.record.sha256
    except UnreadableFile as problem:
        return str(problem)
    return SPOOL_ROTTEN if rotten else "other bytes come back than were accepted"
