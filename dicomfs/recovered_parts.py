"""What header packs and stand-ins say, for recovery: from a snapshot where that has it, else from the packs.

Owns when a snapshot is believed: about a pack of the same name and size, and only while it agrees with the
journal about what was forgotten.
"""

from __future__ import annotations

import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from dicomfs.errors import FormatError, NotFoundError
from dicomfs.format.header import SeriesPart
from dicomfs.format.snapshot import PartFacts, SnapshotReader, StandInFacts
from dicomfs.model import ObjectKey
from dicomfs.packs import PackSource


@dataclass(frozen=True, slots=True)
class FoundPart:
    """What choosing among the parts of a series takes; its table is read again when it is committed."""

    number: int
    key: ObjectKey
    index: int
    positions: array.array[int]
    """4 bytes an instance, where the table takes some hundred: all parts are held at once."""
    needed: frozenset[ObjectKey]


class Facts:
    """Answers what recovery asks of packs.  Methods raise as those of `PackSource` do."""

    def __init__(
        self, source: PackSource, sizes: Mapping[ObjectKey, int], snapshot: SnapshotReader | None
    ) -> None:
        """``sizes`` are those of the objects that are there."""
        self._source, self._sizes, self._snapshot = source, sizes, snapshot
        self._believed: set[ObjectKey] = set()
        self._stand_ins: dict[ObjectKey, StandInFacts] = {}
        if snapshot is not None:
            self._stand_ins = {one.key: one for one in snapshot.stand_ins()}

    @property
    def from_snapshot(self) -> int:
        """How many header packs need not be read."""
        return len(self._believed)

    def parts(self, key: ObjectKey, forgotten: Mapping[int, Container[int]]) -> Sequence[PartFacts]:
        """The parts of a header pack, in the order of its index; their UIDs may be ''.

        ``forgotten`` are positions by series.
        """
        if self._snapshot is not None:
            try:
                found = self._snapshot.header(key)
            except FormatError:
                found = None
            if (
                found is not None
                and found.size == self._sizes.get(key)
                and all(part.agrees(forgotten.get(part.series.number, ())) for part in found.parts)
            ):
                self._believed.add(key)
                return found.parts
        count = len(self._source.headers(key).parts)
        parts = (self._source.part(key, index) for index in range(count))
        return [PartFacts.of(part, forgotten.get(part.series.number, ())) for part in parts]

    def table(self, key: ObjectKey, index: int) -> SeriesPart | PartFacts:
        """A part with the UIDs of its rows."""
        if key in self._believed and self._snapshot is not None:
            found = self._snapshot.header(key)
            if found is None:
                raise NotFoundError("header pack", key)
            return found.parts[index]
        return self._source.identified_part(key, index)

    def stand_in(self, key: ObjectKey) -> StandInFacts:
        """What a pack of frames says of itself."""
        known = self._stand_ins.get(key)
        if known is not None and known.size == self._sizes.get(key):
            return known
        packing = self._source.packing(key)
        names = tuple(other.key for other in packing.stands_for)
        return StandInFacts(key, self._sizes[key], packing.profile_name, names)
