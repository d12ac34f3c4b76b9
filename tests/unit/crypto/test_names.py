"""Stored names: reversible, apart by kind and tier, and refused where they are not of this tier."""

from __future__ import annotations

import pytest

from dicomfs.crypto.names import NameCipher
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import MAX_KEY_BYTES, check_key

CIPHER = NameCipher(bytes(range(64)))
KEYS = [
    "pixel/ab/" + "ab" * 32,
    "header/ab/" + "ab" * 32,
    "pixel/ac/" + "ab" * 32,
    "pixel/ab/" + "ab" * 31,
    "journal/0000000000000001",
    "journal/0001",
    "owner",
    "owner/a",
    "a.b/c-d/e_f",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_name_leads_back_to_its_key_and_keeps_its_kind(key: str) -> None:
    stored = CIPHER.stored(ObjectKey(key))
    assert CIPHER.logical(stored) == key
    assert stored.partition("/")[0] == key.partition("/")[0]
    assert check_key(stored, "any") == stored


def test_names_are_the_same_each_time_and_differ_from_each_other() -> None:
    names = [CIPHER.stored(ObjectKey(key)) for key in KEYS]
    assert names == [CIPHER.stored(ObjectKey(key)) for key in KEYS]
    assert len({name.partition("/")[2] for name in names}) == len(KEYS)


def test_another_name_key_makes_and_opens_other_names() -> None:
    other = NameCipher(bytes(64))
    for key in KEYS:
        stored = CIPHER.stored(ObjectKey(key))
        if not stored.endswith(".sealed"):
            assert other.stored(ObjectKey(key)) != stored
            assert other.logical(stored) is None


@pytest.mark.parametrize(
    "name",
    [
        "pixel/ab/" + "ab" * 32,
        "pixel/ab/" + "ab" * 48,
        "journal/0000000000000001",
        "journal/0000000000000001.seale",
        "keyring/0000000000000000/00000001",
        "owner/" + "ab" * 16,
        "owner/" + "ab" * 16 + "a",
        "owner",
        "",
    ],
)
def test_names_that_this_key_did_not_make_are_ignored(name: str) -> None:
    assert CIPHER.logical(name) is None


def test_a_name_in_another_folder_or_of_another_kind_is_not_one() -> None:
    stored = CIPHER.stored(ObjectKey(KEYS[0]))
    kind, folder, digest = stored.split("/")
    assert CIPHER.logical(f"{kind}/{'00' if folder != '00' else '01'}/{digest}") is None
    assert CIPHER.logical(f"header/{folder}/{digest}") is None


def test_a_key_too_long_to_be_sealed_gets_a_name_that_tiers_refuse() -> None:
    assert len(CIPHER.stored(ObjectKey("a/" + "b" * (MAX_KEY_BYTES - 2)))) > MAX_KEY_BYTES
