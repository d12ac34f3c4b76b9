"""Patients, studies and series of a recovered catalog, made consistent again.

Owns three repairs: an acceptance that stopped between journal and catalog leaves nodes whose identity was
given out again; a lost journal object leaves nodes without their parent; and it leaves spooled files without
their series.  Reads spooled files, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dicomfs.dicom.attributes import Attributes
from dicomfs.model import Level, PatientNode, SeriesNode, StudyNode
from dicomfs.new_nodes import new_patient, new_series, new_study

Node = TypeVar("Node", PatientNode, StudyNode, SeriesNode)


@dataclass(slots=True)
class RecoveredNodes:
    """Nodes by number, and how far numbers of each level are used up."""

    patients: dict[int, PatientNode] = field(default_factory=dict)
    studies: dict[int, StudyNode] = field(default_factory=dict)
    series: dict[int, SeriesNode] = field(default_factory=dict)
    reserved: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))

    def add(
        self, patients: Iterable[PatientNode], studies: Iterable[StudyNode], series: Iterable[SeriesNode]
    ) -> None:
        """Remember nodes; what was said first stays."""
        for patient in patients:
            self.patients.setdefault(patient.number, patient)
        for study in studies:
            self.studies.setdefault(study.number, study)
        for one in series:
            self.series.setdefault(one.number, one)

    def reserve(self, level: Level, reserved: int) -> None:
        """Remember a high-water mark."""
        self.reserved[level] = max(self.reserved[level], reserved)

    def settle(self, packed: Collection[int], spooled: Mapping[int, Callable[[], Attributes]]) -> list[str]:
        """Make identities unique and parents present; returns what cannot be shown.

        ``packed`` are the series with parts; ``spooled`` gives, for the series with spooled files, the
        attributes of one of them.
        """
        for level, nodes in ((Level.PATIENT, self.patients), (Level.STUDY, self.studies)):
            self.reserve(level, max(nodes, default=0) + 1)
        self.reserve(Level.SERIES, max([0, *self.series, *packed, *spooled]) + 1)
        for number, describe in spooled.items():
            if not self._whole(number):
                self._derive(number, describe())
        self.studies = {n: study for n, study in self.studies.items() if study.patient in self.patients}
        self.series = {n: one for n, one in self.series.items() if one.study in self.studies}
        return self._unite({*packed, *spooled})

    def _whole(self, series: int) -> bool:
        one = self.series.get(series)
        study = self.studies.get(one.study) if one else None
        return study is not None and study.patient in self.patients

    def _derive(self, number: int, a: Attributes) -> None:
        """Make the nodes of a series from the attributes of one of its files."""
        patient_key = (a.issuer, a.patient_id, a.patient_name)
        patients = [p for p in self.patients.values() if _patient_key(p) == patient_key]
        patient = patients[-1] if patients else new_patient(self._take(Level.PATIENT), a)
        studies = [s for s in self.studies.values() if (s.patient, s.uid) == (patient.number, a.study_uid)]
        study = studies[-1] if studies else new_study(self._take(Level.STUDY), patient.number, a)
        self.patients[patient.number] = patient
        self.studies[study.number] = study
        self.series[number] = new_series(number, study.number, a)

    def _take(self, level: Level) -> int:
        number = max(1, self.reserved[level])
        self.reserved[level] = number + 1
        return number

    def _unite(self, used: Collection[int]) -> list[str]:
        """Leave one node per identity: one that holds instances, else the latest."""
        used_studies = {one.study for one in self.series.values() if one.number in used}
        used_patients = {study.patient for study in self.studies.values() if study.number in used_studies}
        self.patients, stands_for = _chosen(self.patients, _patient_key, used_patients)
        moved = {n: replace(s, patient=stands_for[s.patient]) for n, s in self.studies.items()}
        self.studies, stands_for = _chosen(moved, lambda s: (s.patient, s.uid), used_studies)
        rehung = {n: replace(s, study=stands_for[s.study]) for n, s in self.series.items()}
        self.series, stands_for = _chosen(rehung, lambda s: (s.study, s.uid), used)
        return [
            f"series {number} repeats series {other}; its instances are left out"
            for number, other in stands_for.items()
            if number != other and number in used
        ]


def _patient_key(patient: PatientNode) -> tuple[str, str, str]:
    return patient.issuer, patient.patient_id, patient.name


def _chosen(
    nodes: Mapping[int, Node], identity: Callable[[Node], Hashable], used: Collection[int]
) -> tuple[dict[int, Node], dict[int, int]]:
    """One node per identity, and the number that stands for each."""
    best: dict[Hashable, Node] = {}
    for node in nodes.values():
        key = identity(node)
        other = best.get(key)
        if other is None or (node.number in used, node.number) > (other.number in used, other.number):
            best[key] = node
    return (
        {node.number: node for node in best.values()},
        {number: best[identity(node)].number for number, node in nodes.items()},
    )
