"""Which folders ``/versions`` shows: those above the series that hold superseded or rejected instances.

Owns that one derived table; the names and everything else come from the catalog.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from dicomfs.model import Level, PatientNode, SeriesNode, StudyNode
from dicomfs.vfs_types import TreeCatalog


class _Shown(NamedTuple):
    change: int
    below: Mapping[tuple[Level, int], Set[int]]


class VersionFolders:
    """Numbers of the folders under ``/versions``, derived again when the catalog has changed.

    Any thread may call it: two threads may derive the same table at once, the assignment is atomic.
    """

    def __init__(self, catalog: TreeCatalog) -> None:
        self._catalog = catalog
        self._shown = _Shown(-1, {})
        self._parents: dict[int, tuple[int, int]] = {}

    def below(self, level: Level, parent: int) -> Set[int]:
        """Numbers of the nodes of ``level`` shown in the folder ``parent`` (0 for patients)."""
        change = self._catalog.last_change()
        if self._shown.change != change:
            self._shown = _Shown(change, self._derive())
        return self._shown.below.get((level, parent), frozenset())

    def _derive(self) -> Mapping[tuple[Level, int], Set[int]]:
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


def children_of(
    catalog: TreeCatalog, level: Level, parent: int
) -> Sequence[PatientNode] | Sequence[StudyNode] | Sequence[SeriesNode]:
    """The nodes of ``level`` below ``parent`` (0 for patients)."""
    match level:
        case Level.PATIENT:
            return catalog.patients()
        case Level.STUDY:
            return catalog.studies(parent)
        case Level.SERIES:
            return catalog.series_of(parent)
