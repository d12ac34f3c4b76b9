"""What is written in front of a received data set is a meta group that every reader understands."""

from __future__ import annotations

import io

import pydicom
import pytest

from dicomfs.dicom.meta_group import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, part10_start
from dicomfs.dicom.part10 import scan
from tests import samples


def start(**changed: str) -> bytes:
    values = {
        "sop_class_uid": samples.CT_IMAGE,
        "sop_instance_uid": "1.2.3",
        "transfer_syntax_uid": samples.EXPLICIT,
        "source_ae": "CT1",
    }
    return part10_start(**(values | changed))


def test_pydicom_reads_what_was_said() -> None:
    meta = pydicom.dcmread(io.BytesIO(start() + samples.write(samples.identity()))).file_meta
    assert meta.MediaStorageSOPClassUID == samples.CT_IMAGE
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == samples.EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.FileMetaInformationGroupLength == len(start()) - 144
    assert len(IMPLEMENTATION_CLASS_UID) <= 64
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize("syntax", [samples.IMPLICIT, samples.EXPLICIT, samples.BIG_ENDIAN])
def test_the_data_set_begins_right_behind_it(syntax: str) -> None:
    data = samples.write(samples.identity(), samples.writing(syntax))
    found = scan(start(transfer_syntax_uid=syntax) + data)
    assert found.complete
    assert found.has_meta
    assert found.syntax.uid == syntax


@pytest.mark.parametrize("value", ["", "1", "12", "1" * 64, "Ä\u4e2d\n"])
def test_every_value_keeps_the_lengths_even_and_right(value: str) -> None:
    made = start(sop_instance_uid=value, source_ae=value[:16], sop_class_uid=value)
    assert len(made) % 2 == 0
    assert scan(made + samples.write(samples.identity())).complete


def test_the_same_request_gives_the_same_bytes() -> None:
    assert start() == start()
    assert start() != start(source_ae="CT2")
