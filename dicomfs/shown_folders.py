"""Which folders hold something to show: under ``/patients`` shown instances, under ``/versions`` other ones.

Owns those derived tables; the names and everything else come from the catalog.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from dicomfs.model import Level, PatientNode, SeriesNode, StudyNode
from dicomfs.vfs_types import TreeCatalog

ChildNodes = Sequence[PatientNode] | Sequence[StudyNode] | Sequence[SeriesNode]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was derived at one change number."""

    change: int
    spooled: Set[int]
    """Series with spooled instances."""
    versions: Mapping[tuple[Level, int], Set[int]]
    """(level, parent) -> numbers of the nodes of that level above a series with versions."""
    shown: dict[tuple[Level, int], bool] = field(default_factory=dict)
    """Answers about ``/patients`` given so far."""


class ShownFolders:
    """Folders with something in them, derived again when the catalog has changed.

    Any thread may call it: two threads may derive the same table at once, its assignment is atomic.
    """

    def __init__(self, catalog: TreeCatalog) -> None:
        self._catalog = catalog
        self._known = _Known(-1, frozenset(), {})
        self._parents: dict[int, tuple[int, int]] = {}

    def patients_children(self, level: Level, parent: int) -> list[PatientNode | StudyNode | SeriesNode]:
        """The nodes of ``level`` in a folder under ``/patients`` (parent 0: the patients).

        A node without shown instances is left out: one whose acceptance was cut short, or one whose
        instances are all superseded by instances elsewhere.
        """
        known = self._current()
        return [node for node in self._children(level, parent) if self._is_shown(known, level, node.number)]

    def versions_children(self, level: Level, parent: int) -> list[PatientNode | StudyNode | SeriesNode]:
        """The same under ``/versions``."""
        numbers = self.versions(level, parent)
        return [node for node in self._children(level, parent) if node.number in numbers]

    def versions(self, level: Level, parent: int) -> Set[int]:
        """Numbers of the nodes of ``level`` in a folder under ``/versions``."""
        return self._current().versions.get((level, parent), frozenset())

    def _current(self) -> _Known:
        known, change = self._known, self._catalog.last_change()
        if known.change != change:
            spooled = frozenset(self._catalog.spooled_series())
            known = self._known = _Known(change, spooled, self._derive_versions())
        return known

    def _derive_versions(self) -> Mapping[tuple[Level, int], Set[int]]:
        below: dict[tuple[Level, int], set[int]] = defaultdict(set)
        for series in self._catalog.versioned_series():
            study, patient = self._parents_of(series)
            below[Level.PATIENT, 0].add(patient)
            below[Level.STUDY, patient].add(study)
            below[Level.SERIES, study].add(series)
        return dict(below)

    def _parents_of(self, series: int) -> tuple[int, int]:
        """Study and patient of a series: they never change, so they are read once."""
        parents = self._parents.get(series)
        if parents is None:
            study = self._catalog.series(series).study
            parents = self._parents[series] = study, self._catalog.study(study).patient
        return parents

    def _is_shown(self, known: _Known, level: Level, number: int) -> bool:
        answer = known.shown.get((level, number))
        if answer is None:
            if level is Level.SERIES:
                answer = self._series_shown(known, number)
            else:
                below = Level(level + 1)
                children = self._children(below, number)
                answer = any(self._is_shown(known, below, node.number) for node in children)
            known.shown[level, number] = answer
        return answer

    def _series_shown(self, known: _Known, series: int) -> bool:
        study = self._parents.get(series, (0, 0))[0]
        if series in known.versions.get((Level.SERIES, study), frozenset()):
            return any(row.version == 0 for row in self._catalog.rows(series))
        return series in known.spooled or bool(self._catalog.parts(series))

    def _children(self, level: Level, parent: int) -> ChildNodes:
        match level:
            case Level.PATIENT:
                return self._catalog.patients()
            case Level.STUDY:
                return self._catalog.studies(parent)
            case Level.SERIES:
                return self._catalog.series_of(parent)
