"""Transfer Syntax UIDs say how a data set is written."""

from __future__ import annotations

import pytest

from dicomfs.dicom.syntax import native_uid, transfer_syntax


@pytest.mark.parametrize(
    "uid,explicit,big_endian,deflated,encapsulated",
    [
        ("1.2.840.10008.1.2", False, False, False, False),
        ("1.2.840.10008.1.2.1", True, False, False, False),
        ("1.2.840.10008.1.2.2", True, True, False, False),
        ("1.2.840.10008.1.2.1.99", True, False, True, False),
        ("1.2.840.10008.1.2.4.50", True, False, False, True),
        ("1.2.840.10008.1.2.4.95", True, False, True, False),
        ("1.2.3.4.5", True, False, False, True),
    ],
)
def test_a_uid_says_how_the_data_set_is_written(
    uid: str, explicit: bool, big_endian: bool, deflated: bool, encapsulated: bool
) -> None:
    found = transfer_syntax(uid)
    assert found.uid == uid
    assert (found.explicit, found.big_endian) == (explicit, big_endian)
    assert (found.deflated, found.encapsulated) == (deflated, encapsulated)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("big_endian", [False, True])
def test_the_native_syntax_of_an_encoding_has_that_encoding(explicit: bool, big_endian: bool) -> None:
    uid = native_uid(explicit=explicit, big_endian=big_endian)
    if big_endian and not explicit:
        assert uid == ""
    else:
        found = transfer_syntax(uid)
        assert (found.explicit, found.big_endian, found.encapsulated) == (explicit, big_endian, False)
