"""Patients, studies and series as their first instance describes them, with the folder names they keep.

Shared by acceptance, which makes them, and recovery, which makes those again that every record of is lost.
"""

from __future__ import annotations

from dicomfs.dicom.attributes import Attributes
from dicomfs.dicom.naming import patient_folder, series_folder, study_folder
from dicomfs.model import PatientNode, SeriesNode, StudyNode


def new_patient(number: int, a: Attributes) -> PatientNode:
    """The patient of an instance, as stored."""
    folder = patient_folder(a.issuer, a.patient_id, a.patient_name)
    return PatientNode(number, a.issuer, a.patient_id, a.patient_name, folder)


def new_study(number: int, patient: int, a: Attributes) -> StudyNode:
    """The study of an instance."""
    folder = study_folder(a.study_uid, a.study_date, a.study_description)
    return StudyNode(number, patient, a.study_uid, a.study_date, a.study_description, folder)


def new_series(number: int, study: int, a: Attributes) -> SeriesNode:
    """The series of an instance."""
    folder = series_folder(a.series_uid, a.series_number, a.series_description)
    return SeriesNode(number, study, a.series_uid, a.modality, a.series_number, a.series_description, folder)
