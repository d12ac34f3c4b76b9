"""The scan finds UIDs and the pixel value in whatever encoding, and says so where it cannot."""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path

import pydicom
import pytest

from dicomfs.dicom.encoding import Budget
from dicomfs.dicom.part10 import DEFLATED, NOT_DICOM, scan, sop_instance_uid
from dicomfs.dicom.tags import Tag
from tests import samples
from tests.conftest import real_files
from tests.fuzz.target import check_scan
from tests.samples import LITTLE, PIXEL_DATA, PLAIN, UNDEFINED

ODD = samples.odd_files()
JUNK = samples.junk()
INCOMPLETE = {"truncated pixels", "truncated header", "encapsulated without an end"}
WITHOUT_PIXELS = {"deflated", "truncated header", "no pixels", "a report"}


@pytest.mark.parametrize("name", ODD)
def test_every_odd_file_shows_its_sop_instance_uid(name: str) -> None:
    found = scan(ODD[name])
    check_scan(ODD[name], found)
    assert sop_instance_uid(found).startswith(samples.ROOT)


@pytest.mark.parametrize("name", ODD)
def test_only_truncated_files_are_incomplete(name: str) -> None:
    assert scan(ODD[name]).complete == (name not in INCOMPLETE)


@pytest.mark.parametrize("name", sorted(set(ODD) - WITHOUT_PIXELS))
def test_the_top_level_pixel_value_is_found(name: str) -> None:
    assert scan(ODD[name]).pixel is not None


@pytest.mark.parametrize("name", JUNK)
def test_what_is_no_instance_has_no_uid(name: str) -> None:
    assert sop_instance_uid(scan(JUNK[name])) == ""


@pytest.mark.parametrize("name", sorted(set(JUNK) - {"prefix alone", "a media directory"}))
def test_what_is_not_dicom_is_refused_with_a_note_and_no_values(name: str) -> None:
    found = scan(JUNK[name])
    assert found.note == NOT_DICOM
    assert found.values == {}
    assert not found.is_dicom


def test_the_data_set_wins_over_the_meta_group() -> None:
    file = samples.part10(samples.write([(Tag.SOP_INSTANCE_UID, "UI", "1.2.3")]), instance="1.2.4")
    assert sop_instance_uid(scan(file)) == "1.2.3"


def test_the_meta_group_stands_in_for_a_missing_uid() -> None:
    file = samples.part10(samples.write([(Tag.MODALITY, "CS", "CT")]), instance="1.2.4")
    assert sop_instance_uid(scan(file)) == "1.2.4"


def test_an_icon_is_not_taken_for_the_pixel_value() -> None:
    file = ODD["an icon before the pixels"]
    pixel = scan(file).pixel
    assert pixel is not None
    assert file[pixel.value_offset : pixel.end] == bytes(range(32))


def test_a_file_with_nothing_but_an_icon_has_no_pixel_value() -> None:
    icon = LITTLE.sequence(
        0x00880200, [LITTLE.element(PIXEL_DATA, "OB", b"icon")], undefined=True, open_items=True
    )
    found = scan(samples.part10(samples.write(samples.identity()) + icon))
    assert found.pixel is None
    assert found.complete


def test_fragments_are_listed_with_the_offset_table_first() -> None:
    file = samples.encapsulated([b"first", b"second"], table=b"\0\0\0\0")
    found = scan(file)
    assert [file[offset : offset + length] for offset, length in found.fragments] == [
        b"\0\0\0\0",
        b"first",
        b"second",
    ]
    assert found.pixel is not None
    assert found.pixel.undefined
    assert file[found.pixel.end : found.pixel.end + 4] == LITTLE.tag(samples.SEQUENCE_END)


def test_fragments_under_an_explicit_length_are_listed_too() -> None:
    file = ODD["encapsulated under a length"]
    assert [file[offset : offset + length] for offset, length in scan(file).fragments] == [b"", b"jpeg"]


def test_a_broken_chain_of_fragments_ends_at_the_next_delimiter() -> None:
    broken = LITTLE.element(
        PIXEL_DATA, "OB", b"no item here" + LITTLE.delimiter(samples.SEQUENCE_END), length=UNDEFINED
    )
    file = samples.part10(samples.write(samples.identity()) + broken, samples.JPEG_BASELINE)
    found = scan(file)
    assert found.complete
    assert found.fragments == ()
    assert found.pixel is not None
    assert file[found.pixel.value_offset : found.pixel.end] == b"no item here"


@pytest.mark.parametrize(
    "name,explicit,big_endian",
    [
        ("explicit", True, False),
        ("implicit", False, False),
        ("big endian", True, True),
        ("neither, implicit", False, False),
        ("neither, big endian", True, True),
        ("declared explicit, is implicit", False, False),
        ("declared implicit, is explicit", True, False),
    ],
)
def test_the_syntax_has_the_flags_that_the_data_set_follows(
    name: str, explicit: bool, big_endian: bool
) -> None:
    syntax = scan(ODD[name]).syntax
    assert (syntax.explicit, syntax.big_endian) == (explicit, big_endian)


def test_a_deflated_file_shows_its_attributes_but_no_pixel_value() -> None:
    found = scan(ODD["deflated"])
    assert found.note == DEFLATED
    assert found.pixel is None
    assert found.values[Tag.MODALITY] == b"CT"


def test_a_deflate_bomb_is_inflated_to_the_limit_only() -> None:
    content = samples.write(samples.identity()) + LITTLE.element(0x00420011, "OB", bytes(40_000_000))
    found = scan(samples.part10(content, samples.DEFLATED))
    assert sop_instance_uid(found).startswith(samples.ROOT)
    assert not found.complete


def test_what_claims_to_be_deflated_and_is_not_is_read_as_it_is() -> None:
    file = samples.part10(samples.write(samples.identity()))
    file = file.replace(
        samples.meta(samples.EXPLICIT, samples.CT_IMAGE, f"{samples.ROOT}.1"),
        samples.meta(samples.DEFLATED, samples.CT_IMAGE, f"{samples.ROOT}.1"),
    )
    assert sop_instance_uid(scan(file)).startswith(samples.ROOT)


def test_values_are_cut_at_64_kib() -> None:
    file = samples.part10(LITTLE.element(Tag.STUDY_DESCRIPTION, "UT", b"x" * 100_000))
    assert len(scan(file).values[Tag.STUDY_DESCRIPTION]) == 64 * 1024


def test_elements_behind_the_pixel_value_do_not_replace_attributes() -> None:
    file = ODD["explicit"] + LITTLE.element(Tag.SOP_INSTANCE_UID, "UI", "9.9.9")
    assert sop_instance_uid(scan(file)) == sop_instance_uid(scan(ODD["explicit"]))


@pytest.mark.parametrize("depth", [1, 10, 5000])
def test_nesting_of_any_depth_is_walked_without_recursion(depth: int) -> None:
    opened = (
        LITTLE.tag(0x00400275) + b"SQ\0\0\xff\xff\xff\xff" + LITTLE.tag(samples.ITEM) + b"\xff" * 4
    ) * depth
    closed = (LITTLE.delimiter(samples.ITEM_END) + LITTLE.delimiter(samples.SEQUENCE_END)) * depth
    found = scan(
        samples.part10(
            samples.write(samples.identity()) + opened + closed + LITTLE.element(PIXEL_DATA, "OW", b"ab")
        )
    )
    assert found.complete
    assert found.pixel is not None


def test_missing_item_delimiters_are_forgiven() -> None:
    item = LITTLE.tag(samples.ITEM) + b"\xff" * 4 + LITTLE.element(0x00400007, "LO", "step")
    value = item + item + LITTLE.delimiter(samples.SEQUENCE_END)
    sequence = LITTLE.element(0x00400275, "SQ", value, length=UNDEFINED)
    found = scan(
        samples.part10(samples.write(samples.identity()) + sequence + LITTLE.element(PIXEL_DATA, "OW", b"ab"))
    )
    assert found.complete
    assert found.pixel is not None


def test_too_many_elements_end_the_scan_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget.__init__, "__defaults__", (1000,))
    nothing = PLAIN.element(0x00110010, "LO", b"")
    found = scan(samples.part10(samples.write(samples.identity()) + nothing * 1000))
    assert found.note == "too many elements"
    assert not found.complete
    assert sop_instance_uid(found).startswith(samples.ROOT)


@pytest.mark.parametrize("tag", [0x00400275, PIXEL_DATA])
def test_too_many_items_end_the_scan_too(tag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget.__init__, "__defaults__", (1000,))
    items = LITTLE.item(b"") * 1000 + LITTLE.delimiter(samples.SEQUENCE_END)
    file = samples.part10(
        samples.write(samples.identity()) + LITTLE.element(tag, "SQ", items, length=UNDEFINED)
    )
    assert not scan(file).complete


def test_a_value_of_undefined_length_without_items_ends_at_its_delimiter() -> None:
    odd = LITTLE.element(
        0x00091010, "OB", b"loose bytes!" + LITTLE.delimiter(samples.SEQUENCE_END), length=UNDEFINED
    )
    found = scan(samples.part10(odd + LITTLE.element(PIXEL_DATA, "OW", b"ab")))
    assert found.complete
    assert found.pixel is not None


@pytest.mark.parametrize("cut", range(0, 700, 13))
def test_every_beginning_of_a_file_scans(cut: int) -> None:
    file = ODD["an icon before the pixels"][:cut]
    check_scan(file, scan(file))


def test_a_mapped_file_is_read_in_place_and_released(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(ODD["explicit"])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert scan(mapped) == scan(ODD["explicit"])


def _by_pydicom(path: Path) -> tuple[str, bytes | None]:
    """UID and pixel value as pydicom reads them; '' and None where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            head = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]
            )
            uid = str(head.get("SOPInstanceUID") or "")
        except Exception:  # pydicom's word on a file it cannot read is that there is none
            return "", None
        try:
            data_set = pydicom.dcmread(path, force=True)
            pixel = next(
                (data_set.get_item(tag) for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009) if tag in data_set),
                None,
            )
        except Exception:
            pixel = None
    return uid, None if pixel is None else pixel.value


@pytest.mark.parametrize("path", real_files("odd") + real_files("series", every=15), ids=lambda p: p.name)
def test_uid_and_pixel_value_agree_with_pydicom_on_real_files(path: Path) -> None:
    uid, value = _by_pydicom(path)
    data = path.read_bytes()
    found = scan(data)
    check_scan(data, found)
    if uid:
        assert sop_instance_uid(found) == uid
    if value is not None and found.note != DEFLATED:
        assert found.pixel is not None
        assert data[found.pixel.value_offset : found.pixel.end] == value
