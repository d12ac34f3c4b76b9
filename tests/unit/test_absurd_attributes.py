"""Attributes beyond all that PS3.5 allows: every file is still accepted, packed, found and given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.recovery import recover
from tests.samples import LITTLE, meta

ALL_BYTES = bytes(range(256))
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ABSURD: dict[str, dict[int, tuple[str, bytes]]] = {
    "a UID of 3,000 characters": {0x00080018: ("UI", b"1." * 1500)},
    "a UID of control characters": {0x00080018: ("UI", bytes(range(1, 255)))},
    "a UID with text behind its end": {0x00080018: ("UI", b"9.11\0\0abc")},
    "a name of 60,000 characters": {0x00100010: ("PN", b"x" * 60_000)},
    "a patient ID of all bytes": {0x00100020: ("LO", ALL_BYTES * 200)},
    "a patient ID that climbs folders": {0x00100020: ("LO", b"../../etc"), 0x00100010: ("PN", b"..")},
    "a patient named as a device": {0x00100020: ("LO", b"CON"), 0x00100010: ("PN", b"NUL")},
    "study and series UIDs of 40,000 characters": {
        0x0020000D: ("UI", b"7." * 20_000),
        0x0020000E: ("UI", b"8." * 20_000),
    },
    "descriptions of all bytes": {0x00081030: ("LO", ALL_BYTES * 100), 0x0008103E: ("LO", ALL_BYTES)},
    "an instance number of 400 digits": {0x00200013: ("IS", b"9" * 400)},
    "a negative instance number": {0x00200013: ("IS", b"-5")},
    "surrogates in UTF-8": {0x00080005: ("CS", b"ISO_IR 192"), 0x00100010: ("PN", b"\xed\xa0\x80\xff\xfe")},
    "half characters of GB18030": {0x00080005: ("CS", b"GB18030 "), 0x00100010: ("PN", ALL_BYTES[128:] * 10)},
    "an unfinished escape": {0x00080005: ("CS", b"\\ISO 2022 IR 87"), 0x00100010: ("PN", b"\x1b$B0!\x1b")},
}


def absurd_file(changes: dict[int, tuple[str, bytes]], number: int) -> bytes:
    """A Part 10 file without pixels in which some attributes are absurd."""
    elements: dict[int, tuple[str, bytes]] = {
        0x00080018: ("UI", b"2.25.%d" % number),
        0x00100010: ("PN", b"Sample^One"),
        0x00100020: ("LO", b"S1"),
        0x0020000D: ("UI", b"1.2"),
        0x0020000E: ("UI", b"1.2.1"),
        0x00200013: ("IS", b"1"),
    } | changes
    body = b"".join(LITTLE.element(tag, vr, value) for tag, (vr, value) in sorted(elements.items()))
    return b"\0" * 128 + b"DICM" + meta("1.2.840.10008.1.2.1", CT_CLASS, f"2.25.{number}") + body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, changes in enumerate(ABSURD.values(), start=1):
        (folder / f"{number:02}.dcm").write_bytes(absurd_file(changes, number))
    return folder


def contents(archive: Archive) -> dict[str, bytes]:
    """Path in the tree -> bytes, for every instance."""
    found = {}
    catalog = archive.catalog
    for patient in catalog.patients():
        for study in catalog.studies(patient.number):
            for series in catalog.series_of(study.number):
                for row in catalog.rows(series.number):
                    reader = archive.reconstructor.open(row.id)
                    path = "/".join([patient.folder, study.folder, series.folder, row.name, str(row.version)])
                    assert path not in found
                    found[path] = reader.read(0, reader.size)
                    reader.close()
    return found


def test_absurd_attributes_keep_no_file_out(folder: Path, tmp_path: Path) -> None:
    wanted = sorted(path.read_bytes() for path in folder.iterdir())
    root = tmp_path / "archive"
    with Archive.create(root) as archive:
        report = archive.import_paths([folder])
        assert (report.taken, report.not_taken) == (len(ABSURD), [])
        spooled = contents(archive)
        assert sorted(spooled.values()) == wanted
        assert archive.pack().failed == []
        assert contents(archive) == spooled
        assert archive.verify(deep=True).problems == []
        assert archive.import_paths([folder]).already == len(ABSURD)
    assert recover(root, (root / "local").as_uri()).problems == []
    with Archive.open(root) as archive:
        assert contents(archive) == spooled


def test_names_in_the_tree_are_legal_everywhere(folder: Path, tmp_path: Path) -> None:
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([folder])
        for path in contents(archive):
            for name in path.split("/")[:-1]:
                assert len(name.encode()) <= 80
                assert not set(name) & set('\\/:*?"<>|')
                assert name.isprintable()
                assert name not in (".", "..")
                assert name == name.strip(" .")
