"""The archive's journal: decisions that no file implies, one small immutable object after another.

Appends to the local tier, numbered; reads back in order.  What the entries mean is docs/format.md,
"Journal objects"; who decides is `accept` and later use cases.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence

from dicomfs import __version__
from dicomfs.errors import DamagedError, FormatError, ObjectDamaged, ObjectExists, ObjectNotFound, TierError
from dicomfs.format import journal as stored
from dicomfs.format.keys import JOURNAL_PREFIX, is_journal_key, journal_key, parse_journal_key
from dicomfs.index.writer import CatalogWriter
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import Tier


class Journal:
    """Appends and reads journal objects of one archive on one tier."""

    def __init__(self, tier: Tier, archive_id: bytes) -> None:
        self._tier, self._archive_id = tier, archive_id
        self._next: int | None = None

    def append(self, entries: Sequence[stored.JournalEntry]) -> None:
        """Write entries as the next object; durable when it returns.

        Raises:
            TierError: it cannot be written; nothing was decided then.
        """
        if self._next is None:
            self._next = 1 + max(map(parse_journal_key, self.list()), default=0)
        while True:
            document = stored.encode_journal(
                entries, self._next, self._archive_id, time.time_ns(), __version__
            )
            try:
                self._tier.put(journal_key(self._next), document, hashlib.sha256(document).hexdigest())
            except ObjectExists:
                # Another process wrote this number; take the following one.
                self._next += 1
                continue
            self._next += 1
            return

    def list(self) -> list[ObjectKey]:
        """The keys of all journal objects, in order."""
        return sorted(key for key, _ in self._tier.list(JOURNAL_PREFIX) if is_journal_key(key))

    def ship(self, target: Tier) -> int:
        """Copy to another tier what it has not yet, in order, each read back; returns how many objects.

        Raises:
            TierError: either tier failed, or another journal lies there, beside which ours would not count.
        """
        there = {key for key, _ in target.list(JOURNAL_PREFIX)}
        ours = self.list()
        due = [key for key in ours if key not in there]
        if shared := [key for key in ours if key in there]:
            # Numbers given out twice, after one was lost here or by two folders, part for good.
            self._require_same(shared[-1], target)
        for key in due:
            copy_document(key, self._tier, target)
        return len(due)

    def _require_same(self, key: ObjectKey, target: Tier) -> None:
        try:
            here, there = self._tier.get(key), target.get(key)
            if here == there:
                return
            stored.decode_journal(here)
            stored.decode_journal(there)
        except (FormatError, ObjectDamaged, ObjectNotFound):
            return  # scrub mends it
        raise TierError(
            target.name,
            key,
            "is not the journal object that is here: decisions made since do not get there",
        )

    def gaps(self) -> Sequence[str]:
        """What is missing between the first number and the last that is there, as sentences."""
        there = [0, *(parse_journal_key(key) for key in self.list())]
        return [
            f"{journal_key(before + 1)}: missing"
            + (f", and all up to {journal_key(after - 1)}" if after > before + 2 else "")
            for before, after in itertools.pairwise(there)
            if after > before + 1
        ]

    def read(self, key: ObjectKey) -> stored.Journal:
        """One journal object.

        Raises:
            TierError: it cannot be had.
            FormatError: it is damaged or of another version.
        """
        return self.checked(key)[1]

    def checked(self, key: ObjectKey) -> tuple[bytes, stored.Journal]:
        """The bytes of a journal object with what they say; raises as `read` does."""
        data = self._tier.get(key)
        document = stored.decode_journal(data)
        if journal_key(document.sequence) != key:
            raise DamagedError(key, f"holds journal object {document.sequence}")
        return data, document


def copy_document(key: ObjectKey, source: Tier, target: Tier) -> None:
    """Copy a journal object to a tier that lacks it, and read it back.

    Raises:
        TierError: either tier failed, or another archive writes its journal there.
        FormatError: it is damaged; nothing was put.
    """
    document = source.get(key)
    stored.decode_journal(document)
    target.put(key, document, hashlib.sha256(document).hexdigest())
    if target.get(key) != document:
        raise TierError(target.name, key, "other bytes come back than were put")


def apply_decision(writer: CatalogWriter, entry: stored.JournalEntry) -> None:
    """Bring tombstones and holds of the journal into effect, in a transaction of the catalog."""
    if isinstance(entry, stored.InstancesForgotten):
        writer.forget(entry.instances)
    elif isinstance(entry, stored.HoldsSet):
        for subject in entry.subjects:
            writer.hold(subject, entry.reason)
    elif isinstance(entry, stored.HoldsReleased):
        for subject in entry.subjects:
            writer.release(subject)
