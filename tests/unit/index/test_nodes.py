"""Patients, studies and series in the catalog."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index import Catalog
from dicomfs.index.nodes import NUMBER_LIMIT
from dicomfs.model import Level, PatientNode
from tests.catalogs import (
    PATIENT,
    STUDY,
    series_node,
)


def test_nodes_are_found_by_number_identity_and_folder(catalog: Catalog) -> None:
    assert catalog.patients() == [catalog.patient(1)] == [PATIENT]
    assert catalog.studies(1) == [catalog.study(1)] == [STUDY]
    assert catalog.series_of(1) == [series_node(1), series_node(2)]
    assert catalog.series(2) == series_node(2)
    assert catalog.find_patient("HOSP", "P1", "Doe^Jane") == PATIENT
    assert catalog.find_study(1, "1.2.3") == STUDY
    assert catalog.find_series(1, "1.2.3.2") == series_node(2)
    assert catalog.child(Level.PATIENT, 0, PATIENT.folder) == 1
    assert catalog.child(Level.SERIES, 1, series_node(2).folder) == 2


def test_what_is_not_there_is_not_found(catalog: Catalog) -> None:
    assert catalog.find_patient("", "P1", "Doe^Jane") is None
    assert catalog.find_study(2, "1.2.3") is None
    assert not catalog.studies(9)
    assert not catalog.series_of(9)
    assert not catalog.rows(9)
    assert catalog.child(Level.PATIENT, 0, PATIENT.folder.upper()) is None
    assert catalog.folder_taken(Level.PATIENT, 0, PATIENT.folder.upper())
    for ask in (catalog.patient, catalog.study, catalog.series):
        with pytest.raises(NotFoundError):
            ask(9)
        with pytest.raises(NotFoundError):
            ask(-1)


@pytest.mark.parametrize(
    "node",
    [
        replace(PATIENT, name="Other"),
        replace(PATIENT, number=2),
        replace(PATIENT, number=2, name="Other", folder=PATIENT.folder.upper()),
        replace(PATIENT, number=0, name="Other", folder="other"),
        replace(PATIENT, number=NUMBER_LIMIT, name="Other", folder="other"),
    ],
)
def test_a_taken_number_identity_or_folder_name_is_refused(catalog: Catalog, node: PatientNode) -> None:
    with catalog.write() as writer, pytest.raises(CatalogError):
        writer.add_patient(node)
    assert catalog.patients() == [PATIENT]


def test_adding_a_node_again_changes_nothing(catalog: Catalog) -> None:
    mark = catalog.last_change()
    with catalog.write() as writer:
        writer.add_patient(PATIENT)
    assert catalog.changes_since(mark) == []
    assert catalog.counts().patients == 1


def test_a_node_needs_its_parent(catalog: Catalog) -> None:
    with catalog.write() as writer, pytest.raises(NotFoundError):
        writer.add_study(replace(STUDY, number=2, patient=7))


def test_the_writers_finders_see_what_it_wrote(catalog: Catalog) -> None:
    other = PatientNode(2, "", "P2", "X\ud800", "p2")
    with catalog.write() as writer:
        writer.add_patient(other)
        assert writer.find_patient("", "P2", "X\ud800") == other
        assert writer.find_study(1, "1.2.3") == STUDY
        assert writer.find_series(1, "1.2.3.1") == series_node(1)
        assert writer.folder_taken(Level.PATIENT, 0, "P2")
        assert catalog.find_patient("", "P2", "X\ud800") is None
    assert catalog.patient(2) == other


def test_reserved_numbers_are_never_given_out_again(catalog: Catalog) -> None:
    with catalog.write() as writer:
        first = writer.reserve(Level.SERIES, 1024)
        assert first == 3
        assert writer.reserve(Level.SERIES, 1) == first + 1024
        writer.raise_counter(Level.SERIES, 5000)
        writer.raise_counter(Level.SERIES, 10)
    assert catalog.next_number(Level.SERIES) == 5000
    with catalog.write() as writer, pytest.raises(CatalogError, match="used up"):
        writer.reserve(Level.SERIES, NUMBER_LIMIT)
