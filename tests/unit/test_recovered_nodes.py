"""Nodes made consistent: one per identity, none without its parent."""

from __future__ import annotations

from collections.abc import Callable

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import scan
from dicomfs.model import Level, PatientNode, SeriesNode, StudyNode
from dicomfs.recovered_nodes import RecoveredNodes
from tests import samples


def patient(number: int, name: str = "Doe^Jane") -> PatientNode:
    return PatientNode(number, "HOSP", "P1", name, f"P1 {name}")


def study(number: int, parent: int, uid: str = "1.2") -> StudyNode:
    return StudyNode(number, parent, uid, "20240101", "CHEST", f"CHEST {uid}")


def series(number: int, parent: int, uid: str = "1.2.3") -> SeriesNode:
    return SeriesNode(number, parent, uid, "CT", "1", "AXIAL", f"AXIAL {uid}")


def described() -> dict[int, Callable[[], Attributes]]:
    return {7: lambda: attributes(scan(samples.ct_series(1, 8, 8)[0]))}


def test_sound_nodes_stay_as_they_are() -> None:
    nodes = RecoveredNodes()
    nodes.add([patient(1), patient(2, "Roe^Jim")], [study(1, 1), study(2, 2)], [series(1, 1), series(2, 2)])
    assert nodes.settle([1], {}) == []
    assert (len(nodes.patients), len(nodes.studies), len(nodes.series)) == (2, 2, 2)
    assert nodes.reserved == {Level.PATIENT: 3, Level.STUDY: 3, Level.SERIES: 3}


def test_of_one_identity_the_used_one_stays_and_else_the_latest() -> None:
    for used, kept in (([1], 1), ([2], 2), ([], 2)):
        nodes = RecoveredNodes()
        nodes.add([patient(1), patient(2)], [study(1, 1), study(2, 2)], [series(1, 1), series(2, 2)])
        assert nodes.settle(used, {}) == []
        assert (list(nodes.patients), list(nodes.studies), list(nodes.series)) == ([kept], [kept], [kept])
        assert nodes.series[kept].study == kept
        assert nodes.reserved[Level.SERIES] == 3


def test_studies_of_a_patient_that_was_named_twice_come_together() -> None:
    nodes = RecoveredNodes()
    nodes.add(
        [patient(1), patient(2)],
        [study(1, 1, "1.1"), study(2, 2, "1.2")],
        [series(1, 1, "1.1.1"), series(2, 2, "1.2.1")],
    )
    assert nodes.settle([1, 2], {}) == []
    assert list(nodes.patients) == [2]
    assert {one.patient for one in nodes.studies.values()} == {2}
    assert list(nodes.series) == [1, 2]


def test_two_used_series_of_one_identity_are_told() -> None:
    nodes = RecoveredNodes()
    nodes.add([patient(1)], [study(1, 1)], [series(1, 1), series(2, 1)])
    assert nodes.settle([1, 2], {}) == ["series 1 repeats series 2; its instances are left out"]


def test_nodes_without_parents_go() -> None:
    nodes = RecoveredNodes()
    nodes.add([], [study(1, 1)], [series(1, 1), series(2, 9)])
    assert nodes.settle([], {}) == []
    assert (nodes.patients, nodes.studies, nodes.series) == ({}, {}, {})
    assert nodes.reserved[Level.STUDY] == 2


def test_a_spooled_series_without_nodes_gets_them_from_its_files() -> None:
    nodes = RecoveredNodes()
    nodes.reserve(Level.PATIENT, 1024)
    nodes.add([patient(1)], [study(1, 1)], [])
    assert nodes.settle([], described()) == []
    one = nodes.series[7]
    assert (one.modality, one.uid) == ("CT", samples.uid("Sample^Patient", 0))
    assert nodes.studies[one.study].uid == samples.uid("Sample^Patient")
    assert nodes.studies[one.study].patient == 1024
    assert nodes.reserved[Level.PATIENT] == 1025
    assert nodes.reserved[Level.SERIES] == 8


def test_a_spooled_series_joins_the_patient_and_study_that_are_known() -> None:
    first, second = RecoveredNodes(), RecoveredNodes()
    first.settle([], described())
    second.add(first.patients.values(), first.studies.values(), [])
    second.settle([], described())
    assert (second.patients, second.studies, second.series) == (first.patients, first.studies, first.series)
