"""The compact record of a part."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.errors import CatalogError
from dicomfs.index import PartRow
from dicomfs.index.parts import decode_part, encode_part, read_head
from dicomfs.instance_names import instance_name
from dicomfs.model import ConflictClass, InstanceId, InstanceRow
from tests.catalogs import header_key, part_row

ROWS = st.lists(
    st.builds(
        PartRow,
        st.integers(0, 2**23 - 1),
        st.none() | st.integers(-(2**70), 2**70),
        st.integers(0, 2),
        st.text(max_size=70),
        st.integers(0, 2**50),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(min_size=8, max_size=32),
        st.integers(-(2**63), 2**63 - 1),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row.position,
)


def _expected(row: PartRow) -> InstanceRow:
    name = instance_name(row.number, row.sop_instance_uid, row.name_level)
    return InstanceRow(
        InstanceId(5, row.position),
        name,
        row.sop_instance_uid,
        row.size,
        row.mtime_ns,
        row.sha256[:8],
        0,
        ConflictClass.NONE,
        False,
    )


@given(ROWS)
def test_rows_come_back_in_their_order_all_and_one_by_one(rows: list[PartRow]) -> None:
    decoded = decode_part(5, encode_part(rows, header_key(1), 3, 77))
    expected = [_expected(row) for row in rows]
    assert decoded.instances({}) == expected
    assert [decoded.instance(index, (0, 0)) for index in range(len(rows))] == expected
    assert [decoded.row_at(row.position) for row in rows] == list(range(len(rows)))
    assert all(index in decoded.rows_named(row.name) for index, row in enumerate(expected))
    assert decoded.orders.tolist() == [row.order for row in rows]


def test_the_head_tells_what_counting_needs() -> None:
    head = read_head(encode_part([part_row(1, 9), part_row(1, 4)], header_key(1), 3, 77))
    assert (head.first, head.last, head.rows, head.part_index, head.stamp) == (4, 9, 2, 3, 77)
    assert (head.logical_bytes, head.header_key) == (2013, header_key(1))


def test_a_thousand_usual_rows_take_under_fifteen_bytes_each() -> None:
    assert len(encode_part([part_row(1, n) for n in range(1000)], header_key(1), 0, 1)) < 15_000


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [part_row(1, 1), part_row(1, 1)],
        [replace(part_row(1, 1), position=2**23)],
        [replace(part_row(1, 1), size=-1)],
        [replace(part_row(1, 1), sha256=b"short")],
        [replace(part_row(1, 1), name_level=3)],
    ],
)
def test_impossible_rows_are_refused(rows: list[PartRow]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode_part(rows, header_key(1), 0, 1)


@given(st.data())
def test_a_damaged_record_gives_rows_or_the_catalogs_error(data: st.DataObject) -> None:
    blob = bytearray(encode_part([part_row(1, n) for n in range(9)], header_key(1), 0, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    for damaged in (bytes(blob), bytes(blob[:cut])):
        try:
            decode_part(1, damaged).instances({})
        except CatalogError:
            continue
