"""The rule for file names of instances."""

from __future__ import annotations

import hashlib

import pytest

from dicomfs.instance_names import NUMBER_LIMIT, instance_name, number_in_name

UID = "1.2.840.1"
HASH = hashlib.sha256(UID.encode()).hexdigest()


@pytest.mark.parametrize(
    "number, level, name",
    [
        (12, 0, "000012.dcm"),
        (12, 1, f"000012-{HASH[:8]}.dcm"),
        (12, 2, f"000012-{HASH[:16]}.dcm"),
        (12345678, 0, "12345678.dcm"),
        (None, 0, f"x-{HASH[:8]}.dcm"),
        (None, 1, f"x-{HASH[:8]}.dcm"),
        (None, 2, f"x-{HASH[:16]}.dcm"),
        (-1, 0, f"x-{HASH[:8]}.dcm"),
        (NUMBER_LIMIT, 0, f"x-{HASH[:8]}.dcm"),
    ],
)
def test_names_carry_the_number_and_as_much_hash_as_the_level_says(
    number: int | None, level: int, name: str
) -> None:
    assert instance_name(number, UID, level) == name


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="no name level 3"):
        instance_name(1, UID, 3)


def test_a_uid_with_lone_surrogates_still_has_a_name() -> None:
    assert instance_name(None, "1.\ud800", 0).startswith("x-")


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("number", [None, 0, 12, 999_999, 1_000_000, NUMBER_LIMIT - 1])
def test_the_number_is_found_again_in_each_name(number: int | None, level: int) -> None:
    assert number_in_name(instance_name(number, UID, level)) == (True, number)


@pytest.mark.parametrize(
    "name", ["", "12.dcm", "000012", "000012.DCM", "000012-xyz.dcm", "x.dcm/..", "000012.dcm\n"]
)
def test_other_names_name_no_instance(name: str) -> None:
    assert number_in_name(name) == (False, None)
