"""The declared key table."""

from __future__ import annotations

import pytest

from dicomfs.index.keys import CATALOG_TABLES, PARTS, SPOOL_TABLES, Part, pack_object_key, unpack_object_key
from dicomfs.model import ObjectKey
from tests.catalogs import header_key


@pytest.mark.parametrize("tables", [CATALOG_TABLES, SPOOL_TABLES])
def test_table_names_differ_and_a_tail_comes_last(tables: tuple[object, ...]) -> None:
    assert len({table.name for table in tables}) == len(tables)  # type: ignore[attr-defined]  # both hold tables
    for table in tables:
        assert all(kind is not Part.TAIL for _, kind in table.key[:-1])  # type: ignore[attr-defined]  # as above


def test_keys_sort_as_their_numbers() -> None:
    pairs = [(1, 2), (1, 300), (2, 0), (256, 1), (2**40 - 1, 2**24 - 1)]
    assert [PARTS.pack(*pair) for pair in pairs] == sorted(PARTS.pack(*pair) for pair in pairs)
    assert [tuple(PARTS.numbers(PARTS.pack(*pair))) for pair in pairs] == pairs


def test_numbers_too_large_for_a_key_are_refused() -> None:
    with pytest.raises(OverflowError):
        PARTS.pack(2**40, 0)


@pytest.mark.parametrize(
    "key, size",
    [
        (header_key(1), 33),
        (ObjectKey(header_key(2).replace("header", "pixel")), 33),
        (ObjectKey("journal/00000000000000ff"), 9),
        (ObjectKey("keyring/3"), 10),
        (ObjectKey("journal/00000000000000FF"), 25),
        (ObjectKey("header/zz/" + "z" * 64), 75),
        (ObjectKey("header/00/" + header_key(1)[10:]), 75),
        (ObjectKey(""), 1),
    ],
)
def test_object_keys_come_back_from_their_short_form(key: ObjectKey, size: int) -> None:
    assert unpack_object_key(pack_object_key(key)) == key
    assert len(pack_object_key(key)) == size
