"""Which packs of a recovered archive are read by stand-ins (docs/format.md).

Header packs name the pack that was packed first; who stands in for it says so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dicomfs.errors import DicomfsError, KeyDestroyed
from dicomfs.format.snapshot import StandInFacts
from dicomfs.model import ObjectKey, holds_frames


@dataclass(slots=True)
class StandIns:
    """What packs say of themselves; only those that nobody names are asked, and all where one is missing."""

    by_key: dict[ObjectKey, ObjectKey] = field(default_factory=dict)
    """Pack -> the one to read in its place."""
    profiles: dict[ObjectKey, str] = field(default_factory=dict)
    """Profile of each pack that was asked."""
    problems: list[str] = field(default_factory=list)
    _ranks: dict[ObjectKey, tuple[int, str]] = field(default_factory=dict)

    def find(
        self,
        ask: Callable[[ObjectKey], StandInFacts],
        sizes: Mapping[ObjectKey, int],
        needed: Collection[ObjectKey],
    ) -> StandIns:
        """Ask the packs of a tier; ``needed`` are those that instance tables name."""
        frames = [key for key in sorted(sizes) if holds_frames(key)]
        self._ask(ask, [key for key in frames if key not in needed])
        if any(key not in sizes and key not in self.by_key for key in needed if holds_frames(key)):
            self._ask(ask, [key for key in frames if key in needed])
        return self

    def _ask(self, ask: Callable[[ObjectKey], StandInFacts], keys: list[ObjectKey]) -> None:
        for key in keys:
            try:
                facts = ask(key)
            except KeyDestroyed:
                continue  # on purpose, and not deleted yet: gc does it
            except DicomfsError as problem:
                self.problems.append(str(problem))
                continue
            self.profiles[key] = facts.profile
            for other in facts.stands_for:
                self._claim(other, key, len(facts.stands_for))

    def _claim(self, key: ObjectKey, stand_in: ObjectKey, length: int) -> None:
        """The longest list counts, then the smallest key."""
        rank = (-length, stand_in)
        if key not in self._ranks or rank < self._ranks[key]:
            self._ranks[key] = rank
            self.by_key[key] = stand_in
