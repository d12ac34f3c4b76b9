"""The attributes of an instance that name it, place it in the tree and order it within its stack.

Owns the `Attributes` record.  Does not own names in the tree (`naming`) nor the order itself (`geometry`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dicomfs.dicom import values
from dicomfs.dicom.part10 import Scan, sop_instance_uid
from dicomfs.dicom.pixels import burned_in
from dicomfs.dicom.tags import Tag

MAX_TEXT_BYTES = 900
_CUT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Attributes:
    """Decoded attributes; strings without padding and '' where missing."""

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    patient_name: str
    """PN with all its component groups, as stored."""
    issuer: str
    study_date: str
    study_description: str
    series_number: str
    series_description: str
    modality: str
    instance_number: int | None
    image_type: tuple[str, ...] = ()
    echo_time: float | None = None
    """Milliseconds."""
    b_value: float | None = None
    """s/mm², from (0018,9087) or a known private attribute."""
    acquisition_number: int | None = None
    kernel: str = ""
    temporal_position: int | None = None
    trigger_time: float | None = None
    """Milliseconds."""
    acquisition_time: str = ""
    position: tuple[float, float, float] | None = None
    """Image Position (Patient), mm."""
    orientation: tuple[float, float, float, float, float, float] | None = None
    """Image Orientation (Patient), direction cosines of rows and columns."""
    burned_in: bool = True


def attributes(scan: Scan) -> Attributes:
    """Decode what the scan kept, in the file's Specific Character Set; never raises."""
    return Attributes(
        sop_instance_uid=bounded(sop_instance_uid(scan)),
        sop_class_uid=values.code(scan, Tag.SOP_CLASS_UID)
        or values.code(scan, Tag.MEDIA_STORAGE_SOP_CLASS_UID),
        study_uid=bounded(values.code(scan, Tag.STUDY_INSTANCE_UID)),
        series_uid=bounded(values.code(scan, Tag.SERIES_INSTANCE_UID)),
        patient_id=bounded(values.text(scan, Tag.PATIENT_ID)),
        patient_name=bounded(values.text(scan, Tag.PATIENT_NAME)),
        issuer=bounded(values.text(scan, Tag.ISSUER_OF_PATIENT_ID)),
        study_date=bounded(values.code(scan, Tag.STUDY_DATE)),
        study_description=bounded(values.text(scan, Tag.STUDY_DESCRIPTION)),
        series_number=bounded(values.code(scan, Tag.SERIES_NUMBER)),
        series_description=bounded(values.text(scan, Tag.SERIES_DESCRIPTION)),
        modality=bounded(values.code(scan, Tag.MODALITY)),
        instance_number=instance_number(scan),
        image_type=tuple(part.strip() for part in values.code(scan, Tag.IMAGE_TYPE).split("\\")),
        echo_time=_first(scan, Tag.ECHO_TIME),
        b_value=_b_value(scan),
        acquisition_number=values.integer_string(scan, Tag.ACQUISITION_NUMBER),
        kernel=values.code(scan, Tag.CONVOLUTION_KERNEL),
        temporal_position=values.integer_string(scan, Tag.TEMPORAL_POSITION_IDENTIFIER),
        trigger_time=_first(scan, Tag.TRIGGER_TIME),
        acquisition_time=values.code(scan, Tag.ACQUISITION_TIME),
        position=_position(scan),
        orientation=_orientation(scan),
        burned_in=burned_in(scan),
    )


def bounded(text: str) -> str:
    """The text up to 900 bytes of UTF-8, far beyond what PS3.5 allows; else its beginning and a digest.

    Damaged files hold values of any length; what names and indexes are made of is kept short and distinct.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return text[:_CUT_CHARACTERS] + "#" + hashlib.sha256(encoded).hexdigest()


def instance_number(scan: Scan) -> int | None:
    """Instance Number; None where it is missing, negative or not a number."""
    number = values.integer_string(scan, Tag.INSTANCE_NUMBER)
    return number if number is not None and number >= 0 else None


def _first(scan: Scan, tag: int) -> float | None:
    found = values.decimals(scan, tag)
    return found[0] if found else None


def _position(scan: Scan) -> tuple[float, float, float] | None:
    found = values.decimals(scan, Tag.IMAGE_POSITION_PATIENT)
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def _orientation(scan: Scan) -> tuple[float, float, float, float, float, float] | None:
    found = values.decimals(scan, Tag.IMAGE_ORIENTATION_PATIENT)
    return (found[0], found[1], found[2], found[3], found[4], found[5]) if len(found) == 6 else None


def _b_value(scan: Scan) -> float | None:
    """The standard attribute, else private ones whose creator is who it should be (PS3.5 7.8)."""
    found = values.floating(scan, Tag.DIFFUSION_B_VALUE, 8)
    if found is not None:
        return found
    if values.code(scan, Tag.SIEMENS_CREATOR) == "SIEMENS MR HEADER":
        return _first(scan, Tag.SIEMENS_B_VALUE)
    if values.code(scan, Tag.GE_CREATOR) == "GEMS_PARM_01":
        number = _first(scan, Tag.GE_B_VALUE)
        # Some releases add 10**9 to mark values that were measured along several directions.
        return number % 1_000_000_000 if number is not None else None
    if values.code(scan, Tag.UIH_CREATOR) == "Image Private Header":
        return values.floating(scan, Tag.UIH_B_VALUE, 8)
    if values.code(scan, Tag.PHILIPS_CREATOR) == "Philips Imaging DD 001":
        return values.floating(scan, Tag.PHILIPS_B_VALUE, 4)
    return None
