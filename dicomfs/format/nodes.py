"""Stored form of patients, studies and series, shared by header packs and journal objects."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dicomfs.model import SERIES_BITS, PatientNode, SeriesNode, StudyNode

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 58)]
SeriesNumber = Annotated[int, msgspec.Meta(ge=0, lt=1 << SERIES_BITS)]


class PatientRecord(msgspec.Struct, frozen=True, array_like=True):
    """Stored form of model.PatientNode."""

    number: _Number
    issuer: str
    patient_id: str
    name: str
    folder: str

    @classmethod
    def of(cls, node: PatientNode) -> PatientRecord:
        """The record of a node."""
        return cls(node.number, node.issuer, node.patient_id, node.name, node.folder)

    def node(self) -> PatientNode:
        """The node of the record."""
        return PatientNode(self.number, self.issuer, self.patient_id, self.name, self.folder)


class StudyRecord(msgspec.Struct, frozen=True, array_like=True):
    """Stored form of model.StudyNode."""

    number: _Number
    patient: _Number
    uid: str
    date: str
    description: str
    folder: str

    @classmethod
    def of(cls, node: StudyNode) -> StudyRecord:
        """The record of a node."""
        return cls(node.number, node.patient, node.uid, node.date, node.description, node.folder)

    def node(self) -> StudyNode:
        """The node of the record."""
        return StudyNode(self.number, self.patient, self.uid, self.date, self.description, self.folder)


class SeriesRecord(msgspec.Struct, frozen=True, array_like=True):
    """Stored form of model.SeriesNode."""

    number: SeriesNumber
    study: _Number
    uid: str
    modality: str
    series_number: str
    description: str
    folder: str

    @classmethod
    def of(cls, node: SeriesNode) -> SeriesRecord:
        """The record of a node."""
        return cls(
            node.number,
            node.study,
            node.uid,
            node.modality,
            node.series_number,
            node.description,
            node.folder,
        )

    def node(self) -> SeriesNode:
        """The node of the record."""
        return SeriesNode(
            self.number,
            self.study,
            self.uid,
            self.modality,
            self.series_number,
            self.description,
            self.folder,
        )
