"""Attributes are decoded in the declared character set; what cannot be decoded never raises."""

from __future__ import annotations

import pytest

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import scan
from dicomfs.dicom.values import decode, encodings
from tests import samples
from tests.samples import PLAIN, Attribute, Writing


def read(extra: list[Attribute], how: Writing = samples.LITTLE) -> Attributes:
    syntax = samples.EXPLICIT if how.explicit else samples.IMPLICIT
    return attributes(scan(samples.part10(samples.write(extra, how), syntax)))


def test_a_ct_slice_has_its_attributes() -> None:
    found = attributes(scan(samples.ct_series(2, 8, 8, seed=3)[1]))
    assert found.sop_instance_uid == samples.uid("Sample^Patient", 3, 2)
    assert found.study_uid == samples.uid("Sample^Patient")
    assert found.series_uid == samples.uid("Sample^Patient", 3)
    assert found.sop_class_uid == samples.CT_IMAGE
    assert (found.patient_name, found.issuer) == ("Sample^Patient", "Sample Hospital")
    assert (found.study_date, found.study_description) == ("20240229", "Head routine")
    assert (found.series_number, found.series_description) == ("3", "Series 3")
    assert (found.modality, found.instance_number, found.acquisition_number) == ("CT", 2, 1)
    assert (found.image_type, found.kernel) == (("ORIGINAL", "PRIMARY", "AXIAL"), "STANDARD")
    assert found.position == (-100.0, -100.0, 2.5)
    assert found.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert not found.burned_in


def test_what_is_missing_is_empty() -> None:
    found = attributes(scan(b"nothing here"))
    assert found.sop_instance_uid == found.study_uid == found.patient_name == found.modality == ""
    assert found.instance_number is None
    assert found.position is None
    assert found.burned_in


@pytest.mark.parametrize(
    "character_set,stored,shown",
    [
        (b"", b"Doe^John", "Doe^John"),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO-IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
        (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (b"ISO 2022 IR 100\\ISO 2022 IR 126", b"Dionysios\x1b-F\xc4\xe9\xef^\xe9", "DionysiosΔιο^é"),
        (b"ISO_IR 192", b"broken \xff utf-8", "broken ÿ utf-8"),
        (b"no such set", b"J\xe9r\xf4me", "Jérôme"),
        (b"ISO_IR 6\\ISO 2022 IR 87", b"\x1b$Bodd", "\x1b$Bodd"),
        (b"\xff\xfe\\\\\\", b"plain", "plain"),
    ],
)
def test_names_are_decoded_as_the_file_declares(character_set: bytes, stored: bytes, shown: str) -> None:
    assert read([(0x00080005, "CS", character_set), (0x00100010, "PN", stored)]).patient_name == shown


@pytest.mark.parametrize("byte", range(256))
def test_no_byte_behind_an_escape_raises(byte: int) -> None:
    for character_set in (b"", b"\\ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO 2022 IR 58", b"ISO_IR 192"):
        for value in (b"\x1b%c", b"\x1b$%c", b"\x1b$)%c\xff", b"a\x1b$B%c\x1b(%c"):
            filled = value.replace(b"%c", bytes([byte]))
            assert isinstance(decode(filled, encodings(character_set)), str)


def test_padding_is_stripped_and_inner_blanks_are_kept() -> None:
    found = read(
        [(0x00100010, "PN", b"  A  B \0 "), (0x0020000D, "UI", b"1.2\0"), (0x00080060, "CS", b"CT ")]
    )
    assert (found.patient_name, found.study_uid, found.modality) == ("A  B", "1.2", "CT")


@pytest.mark.parametrize(
    "stored,number",
    [
        (b"7 ", 7),
        (b" +7", 7),
        (b"0", 0),
        (b"-1", None),
        (b"", None),
        (b"1.5", None),
        (b"7\\8", None),
        (b"seven", None),
        (b"1_000", None),
        ("٣".encode(), None),
        (b"9" * 5000, None),
        (b"4294967296", 4294967296),
    ],
)
def test_instance_numbers_are_plain_integers_or_none(stored: bytes, number: int | None) -> None:
    assert read([(0x00200013, "IS", stored)]).instance_number == number


@pytest.mark.parametrize(
    "stored", [b"1\\2", b"a\\b\\c", b"nan\\0\\0", b"inf\\0\\0", b"1e999\\0\\0", b"1\\2\\3\\4"]
)
def test_a_senseless_position_is_none(stored: bytes) -> None:
    assert read([(0x00200032, "DS", stored)]).position is None


@pytest.mark.parametrize("how", [samples.LITTLE, PLAIN])
@pytest.mark.parametrize(
    "extra,b_value",
    [
        ([(0x00189087, "FD", 700.0)], 700.0),
        ([(0x00190010, "LO", "SIEMENS MR HEADER"), (0x0019100C, "IS", "1000")], 1000.0),
        ([(0x00190010, "LO", "SOMEBODY ELSE"), (0x0019100C, "IS", "1000")], None),
        ([(0x00430010, "LO", "GEMS_PARM_01"), (0x00431039, "IS", "1000000800\\8\\0\\0")], 800.0),
        ([(0x00650010, "LO", "Image Private Header"), (0x00651009, "FD", 500.0)], 500.0),
        ([(0x20010010, "LO", "Philips Imaging DD 001"), (0x20011003, "FL", 250.0)], 250.0),
        ([(0x00189087, "FD", float("nan"))], None),
    ],
)
def test_b_values_are_found_where_vendors_put_them(
    how: Writing, extra: list[Attribute], b_value: float | None
) -> None:
    assert read(extra, how).b_value == b_value
