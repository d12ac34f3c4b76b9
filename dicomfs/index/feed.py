"""The change feed and folder times of one environment: what the mount must make the kernel forget.

A commit writes one feed entry and the time of every folder it changed.  Numbers grow by one per entry
and start at the time of creation, so a rebuilt index never repeats an old one.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import Table
from dicomfs.index.records import Change, StoredChanges, pack_record, unpack_record

KEPT_ENTRIES = 4096
LISTED_CHANGES = 4096
"""More changes than this in one commit are kept as "everything"."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The feed of one environment: its two tables."""

    entries: Table
    changed: Table

    def begin(self, txn: WriteTxn) -> None:
        """Writes the first, empty entry, so that a mark taken now is exact."""
        self._append(txn, time.time_ns(), StoredChanges(time.time_ns(), []))

    def record(self, txn: WriteTxn, changes: Collection[Change]) -> None:
        """One entry for a commit's changes, and the time of the folders they changed; nothing for none."""
        if not changes:
            return
        now = time.time_ns()
        for level, number in {(change.level, change.number) for change in changes}:
            txn.put(self.changed, self.changed.pack(level, number), now.to_bytes(8, "big"))
        listed = sorted(
            ((change.level, change.number, change.name) for change in changes),
            key=lambda change: (change[0], change[1], change[2] or ""),
        )
        overflow = len(listed) > LISTED_CHANGES
        number = self.last(txn) + 1
        self._append(txn, number, StoredChanges(now, listed[: 0 if overflow else None], overflow))
        txn.delete(self.entries, self.entries.pack(number - KEPT_ENTRIES))

    def last(self, txn: ReadTxn) -> int:
        """Number of the newest entry; 0 without any."""
        newest = txn.last(self.entries)
        return 0 if newest is None else int.from_bytes(newest[0], "big")

    def since(self, txn: ReadTxn, number: int) -> list[Change] | None:
        """What changed after entry ``number``; None where the feed does not reach back or overflowed."""
        last = self.last(txn)
        if number == last:
            return []
        if number > last or txn.get(self.entries, self.entries.pack(number)) is None:
            return None
        found: dict[Change, None] = {}
        for _, value in txn.scan(self.entries, start=self.entries.pack(number + 1)):
            entry = unpack_record(value, StoredChanges)
            if entry.overflow:
                return None
            found.update(dict.fromkeys(Change(*change) for change in entry.changes))
        return list(found)

    def changed_ns(self, txn: ReadTxn, level: int, number: int) -> int:
        """When a folder last changed; 0 where this environment never changed it."""
        value = txn.get(self.changed, self.changed.pack(level, number))
        return 0 if value is None else int.from_bytes(value, "big")

    def _append(self, txn: WriteTxn, number: int, entry: StoredChanges) -> None:
        txn.put(self.entries, self.entries.pack(number), pack_record(entry), append=True)
