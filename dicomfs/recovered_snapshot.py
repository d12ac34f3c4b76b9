"""Which snapshot of a tier recovery starts from, and the journal that it brings along.

Owns when one is refused: it is damaged, of another archive, or its journal is not the tier's.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from dicomfs.errors import DicomfsError, FormatError, ObjectExists, ObjectNotFound, TierError
from dicomfs.format.journal import decode_journal
from dicomfs.format.keys import JOURNAL_PREFIX, journal_key
from dicomfs.format.snapshot import SnapshotReader
from dicomfs.snapshot_files import find_snapshots, opened_snapshot
from dicomfs.tiers.base import Tier


def newest_snapshot(
    held: ExitStack, tier: Tier, archive_id: bytes, folder: Path, remarks: list[str]
) -> SnapshotReader | None:
    """The newest good snapshot of a tier, kept open by ``held``; None where there is none.

    ``folder`` is for temporary files; ``remarks`` take why others were passed over.
    """
    try:
        found, bad = find_snapshots(tier)
    except DicomfsError as problem:
        remarks.append(f"snapshots were not looked for: {problem}")
        return None
    remarks += [f"{one.key}: passed over: {one.problem}" for one in bad]
    for one in found:
        if one.archive_id != archive_id:
            remarks.append(f"{one.key}: passed over: it is of another archive")
            continue
        try:
            with ExitStack() as opened:
                reader = opened.enter_context(opened_snapshot(tier, one, folder))
                problem_of = _disagreement(reader, tier)
                if problem_of:
                    remarks.append(f"{one.key}: passed over: {problem_of}")
                    continue
                held.push(opened.pop_all())
        except (FormatError, TierError) as problem:
            remarks.append(f"{one.key}: passed over: {problem}")
            continue
        return reader
    return None


def _disagreement(reader: SnapshotReader, tier: Tier) -> str:
    """Why a snapshot is not one of the archive on the tier; '' where it is.

    Two copies of one archive that both went on have other last journal objects than the other.
    """
    last = None
    for number, data in reader.journal():
        document = decode_journal(data)
        if (document.sequence, document.archive_id) != (number, reader.archive_id):
            return "its journal is another archive's"
        last = number, data
    if last is None:
        return ""
    try:
        there = tier.get(journal_key(last[0]))
    except ObjectNotFound:
        return ""  # lost on the tier: all the better that it is here
    return "" if there == last[1] else "another copy of the archive wrote it"


def bring_journal(reader: SnapshotReader, source: Tier, local: Tier) -> list[str]:
    """Put the journal objects of a snapshot where they are missing locally; what the tier lacks of them.

    Raises:
        TierError: the local tier cannot be written.
    """
    there = {key for key, _ in local.list(JOURNAL_PREFIX)}
    listed = {key for key, _ in source.list(JOURNAL_PREFIX)}
    lost = []
    for number, data in reader.journal():
        key = journal_key(number)
        if key not in listed:
            lost.append(f"{key}: missing on tier {source.name}, and taken from the snapshot")
        if key not in there:
            try:
                local.put(key, data, hashlib.sha256(data).hexdigest())
            except ObjectExists:
                continue  # another process wrote it meanwhile
    return lost
