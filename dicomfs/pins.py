"""Pins: series whose objects stay on the local tier, whatever the rules say.

A decision that no file implies: it goes to the journal before it takes effect.
"""

from __future__ import annotations

from collections.abc import Collection

from dicomfs.format.journal import PinsChanged
from dicomfs.index.catalog import Catalog
from dicomfs.journal import Journal
from dicomfs.model import ObjectKey
from dicomfs.object_facts import objects_of


class Pins:
    """The pins of one archive."""

    def __init__(self, catalog: Catalog, journal: Journal) -> None:
        self._catalog, self._journal = catalog, journal

    def pin(self, series: Collection[int]) -> int:
        """Keep what these series need on the local tier; durable when it returns how many are new.

        Raises:
            TierError: the journal cannot be written; nothing is pinned then.
        """
        new = sorted(set(series) - self._catalog.pinned_series())
        self._change(PinsChanged(pinned=tuple(new)), new, pinned=True)
        return len(new)

    def unpin(self, series: Collection[int]) -> int:
        """End that; returns for how many.  Raises as `pin` does."""
        old = sorted(set(series) & self._catalog.pinned_series())
        self._change(PinsChanged(unpinned=tuple(old)), old, pinned=False)
        return len(old)

    def objects(self) -> set[ObjectKey]:
        """What pinned series need."""
        return objects_of(self._catalog, self._catalog.pinned_series())

    def _change(self, entry: PinsChanged, series: Collection[int], *, pinned: bool) -> None:
        if not series:
            return
        self._journal.append([entry])
        with self._catalog.write() as writer:
            for number in series:
                writer.set_pinned(number, pinned=pinned)
