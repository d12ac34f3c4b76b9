"""What recovery copies before it reads: whole tiers, journals, and which archive a tier belongs to."""

from __future__ import annotations

import os
from pathlib import Path

from dicomfs.errors import DicomfsError, FormatError, TierError, TierFull, UsageError
from dicomfs.format.journal import decode_journal
from dicomfs.format.keys import JOURNAL_PREFIX, SNAPSHOT_PREFIX
from dicomfs.journal import copy_document
from dicomfs.model import PackKind
from dicomfs.packs import PackSource
from dicomfs.paths import create_private
from dicomfs.progress import Progress
from dicomfs.tiers.base import Tier, pieces_of


def archive_of(tier: Tier) -> bytes:
    """The identity of the archive that a tier belongs to, 16 bytes, from the first object that says so.

    Raises:
        UsageError: the tier holds no archive.
    """
    source = PackSource(tier)
    problems = []
    for key, _ in tier.list(PackKind.HEADER.prefix):
        try:
            return source.headers(key).archive_id
        except DicomfsError as problem:
            problems.append(str(problem))
    for key, _ in tier.list(JOURNAL_PREFIX):
        try:
            return decode_journal(tier.get(key)).archive_id
        except DicomfsError as problem:
            problems.append(str(problem))
    raise UsageError(
        f"tier {tier.name} holds no archive" + "".join(f"; {problem}" for problem in problems[:3])
    )


def copy_journal(source: Tier, target: Tier) -> list[str]:
    """Copy the journal objects that the target lacks; those that are damaged are returned."""
    problems = []
    there = {key for key, _ in target.list(JOURNAL_PREFIX)}
    for key, _ in source.list(JOURNAL_PREFIX):
        if key in there:
            continue
        try:
            copy_document(key, source, target)
        except (FormatError, TierError) as problem:
            problems.append(f"not copied: {problem}")
    return problems


def copy_objects(source: Tier, target: Tier, staging: Path, progress: Progress) -> list[str]:
    """Copy every object of an archive; those that are missing or do not match their names are returned."""
    prefixes = [*(kind.prefix for kind in PackKind), SNAPSHOT_PREFIX]
    objects = [found for prefix in prefixes for found in source.list(prefix)]
    progress.start(sum(status.size for _, status in objects), "copying")
    problems = []
    temporary = staging / "copy.part"
    for key, status in objects:
        try:
            with create_private(temporary) as file:
                for piece in pieces_of(source, key, status.size):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            target.put(key, temporary, key.rsplit("/", 1)[1])
        except TierFull:
            raise
        except TierError as problem:
            problems.append(f"not copied: {problem}")
        finally:
            temporary.unlink(missing_ok=True)
        progress.advance(status.size)
    progress.done()
    return problems + copy_journal(source, target)
