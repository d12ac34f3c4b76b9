"""Which packs of a recovered archive are read by stand-ins, and which are twins (docs/format.md).

Header packs name the pack that was packed first; who stands in for it says so itself.  Whether the other is
to go or to stay says where they lie: a tier keeps one of a family, so where two meet, the one that the other
lists is what a move left behind; on a tier of its own it is a twin.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    twins: dict[ObjectKey, ObjectKey] = field(default_factory=dict)
    """Twin -> its pack."""
    tiers: dict[ObjectKey, set[str]] = field(default_factory=dict)
    """Of members of families, the tiers whose copies count."""
    _ranks: dict[ObjectKey, tuple[int, str]] = field(default_factory=dict)
    _lists: dict[ObjectKey, set[ObjectKey]] = field(default_factory=dict)
    """Of each pack that was asked, what it stands for."""
    _needed: frozenset[ObjectKey] = frozenset()

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
        # Those that others list are twins, or left behind: what they can serve, they say themselves.
        self._ask(ask, [key for key in frames if key in self.by_key and key not in self._lists])
        self._needed = frozenset(needed)
        return self

    def settle(self, tiers: Mapping[ObjectKey, Mapping[str, int]], names: Sequence[str]) -> None:
        """Find families: ``tiers`` has those of each pack that is there, ``names`` all, nearest first."""
        for group in self._groups():
            left: dict[ObjectKey, set[str]] = {}
            there = group & tiers.keys()
            for key in there:
                listing = (tiers[other] for other in there if key in self._lists.get(other, ()))
                here = set(tiers[key]).difference(*listing)
                if here and self._needed & group <= self._lists.get(key, set()) | {key}:
                    left[key] = here
            if len(left) < 2:
                continue
            first, *others = sorted(left, key=lambda key: (min(map(names.index, left[key])), self._rank(key)))
            self.tiers |= left
            self.twins |= dict.fromkeys(others, first)
            self.by_key = {key: one for key, one in self.by_key.items() if key not in left}
            self.by_key |= dict.fromkeys(group - left.keys(), first)

    def _groups(self) -> list[set[ObjectKey]]:
        """Packs, and names of packs that are gone, which list each other or the same."""
        groups: dict[ObjectKey, set[ObjectKey]] = {}
        for key, listed in self._lists.items():
            if listed:
                joined = {key, *listed}.union(*(groups[one] for one in (key, *listed) if one in groups))
                groups |= dict.fromkeys(joined, joined)
        return list({id(group): group for group in groups.values()}.values())

    def _rank(self, key: ObjectKey) -> tuple[int, str]:
        return -len(self._lists.get(key, ())), key

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
            self._lists[key] = set(facts.stands_for)
            for other in facts.stands_for:
                self._claim(other, key, len(facts.stands_for))

    def _claim(self, key: ObjectKey, stand_in: ObjectKey, length: int) -> None:
        """The longest list counts, then the smallest key."""
        rank = (-length, stand_in)
        if key not in self._ranks or rank < self._ranks[key]:
            self._ranks[key] = rank
            self.by_key[key] = stand_in
