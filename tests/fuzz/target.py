"""What must hold for any bytes: shared by the fuzzer, the replay of its findings, and the property tests."""

from __future__ import annotations

from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.compare import conflict_class
from dicomfs.dicom.geometry import frame_order, order_keys, stack_key
from dicomfs.dicom.naming import MAX_BYTES, instance_name, patient_folder, series_folder, study_folder
from dicomfs.dicom.part10 import Scan, scan
from dicomfs.dicom.pixels import MAX_HEADER, RunKind, SplitPlan, split


def check_plan(data: bytes, found: Scan, plan: SplitPlan) -> None:
    """The runs join to the file, and the frames are whole."""
    at = 0
    joined = bytearray()
    for run in plan.runs:
        assert run.offset == at
        assert run.length > 0
        joined += data[run.offset : run.offset + run.length]
        at += run.length
    assert bytes(joined) == data
    assert sum(run.length for run in plan.runs if run.kind is RunKind.HEADER) <= MAX_HEADER
    frames = [run for run in plan.runs if run.kind is RunKind.FRAMES]
    assert (plan.kind == "native") == bool(frames) == (plan.layout is not None)
    if plan.layout is not None:
        assert [run.length for run in frames] == [plan.frame_count * plan.layout.frame_bytes]
        assert 0 <= plan.layout.high_bit < plan.layout.bits_allocated
        assert 0 < plan.layout.bits_stored <= plan.layout.high_bit + 1


def check_scan(data: bytes, found: Scan) -> None:
    """All offsets lie within the file."""
    assert found.size == len(data)
    assert 0 <= found.data_offset <= len(data)
    assert set(found.values) == set(found.vrs)
    if found.pixel is not None:
        assert 0 <= found.pixel.header_offset < found.pixel.value_offset <= found.pixel.end <= len(data)
    for offset, length in found.fragments:
        assert found.pixel is not None
        assert found.pixel.value_offset <= offset <= offset + length <= len(data)


def exercise(data: bytes) -> None:
    """Scan, decode, split, name and compare ``data``: nothing may raise."""
    found = scan(data)
    check_scan(data, found)
    plan = split(data, found)
    check_plan(data, found, plan)
    attrs = attributes(found)
    folders = (
        patient_folder(attrs.issuer, attrs.patient_id, attrs.patient_name),
        study_folder(attrs.study_uid, attrs.study_date, attrs.study_description),
        series_folder(attrs.series_uid, attrs.series_number, attrs.series_description),
        instance_name(attrs.instance_number, attrs.sop_instance_uid, 0),
    )
    for folder in folders:
        assert 0 < len(folder.encode("utf-8")) <= MAX_BYTES
        assert "/" not in folder
        assert "\0" not in folder
    order_keys(attrs)
    frame_order(data, found)
    if plan.layout is not None:
        hash(stack_key(attrs, plan.layout))
    conflict_class(data, data[:-1] + b"\1")
    conflict_class(data, data + b"\0\1")
