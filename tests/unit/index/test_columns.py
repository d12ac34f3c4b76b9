"""Columns come back as they were, and are short where they are regular."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.index.columns import IntColumn, UidColumn, Uids, decode_ints, encode_ints, encode_uids

INT64 = st.integers(-(2**63), 2**63 - 1)
TAILS = st.one_of(st.text("0123456789", max_size=70), st.text(max_size=8), st.text("01.", max_size=12))
UIDS = st.builds(
    lambda prefix, tails: [prefix + tail for tail in tails], TAILS, st.lists(TAILS, min_size=1, max_size=9)
)


@given(st.lists(INT64, min_size=1, max_size=50))
def test_any_integers_come_back(values: list[int]) -> None:
    assert decode_ints(encode_ints(np.array(values, dtype=np.int64)), len(values)).tolist() == values


@pytest.mark.parametrize(
    "values",
    [
        [7] * 1000,
        range(1000),
        range(5000, 3000, -2),
        [n * n for n in range(1000)],
        [10**18 + 10**9 * n for n in range(99)],
    ],
)
def test_regular_integers_take_no_bytes(values: list[int]) -> None:
    assert encode_ints(np.array(values, dtype=np.int64)).width == 0


@given(UIDS)
def test_any_uids_come_back_all_and_one_by_one(uids: list[str]) -> None:
    decoded = Uids.decode(encode_uids(uids), len(uids))
    assert decoded.all() == uids
    assert [decoded[row] for row in range(len(uids))] == uids


def test_lone_surrogates_come_back() -> None:
    uids = ["1.2.\ud800", "1.2.\ud801é", "1.2.é"]
    assert Uids.decode(encode_uids(uids), 3).all() == uids


@pytest.mark.parametrize(
    "tails",
    [
        range(900, 1100),
        [10**37 + n for n in range(99)],
        [f"{n:08d}" for n in range(99)],
        [10**17 - 50 + n for n in range(99)],
    ],
)
def test_numbered_uids_are_kept_as_numbers(tails: list[object]) -> None:
    column = encode_uids([f"1.2.840.{tail}" for tail in tails])
    assert column.chunks
    assert sum(len(chunk.planes) for chunk in column.chunks) <= 2 * len(tails)


@pytest.mark.parametrize(
    "column",
    [
        IntColumn(0, [], 0, 1, 1, b"12"),
        IntColumn(0, [], 0, 1, 9, b"1" * 27),
        IntColumn(0, [], 0, 1, -1, b""),
        IntColumn(4, [1, 2, 3, 4], 0, 1, 0, b""),
        IntColumn(1, [], 0, 1, 0, b""),
    ],
)
def test_impossible_columns_are_refused(column: IntColumn) -> None:
    with pytest.raises(ValueError, match="impossible column"):
        decode_ints(column, 3)


@pytest.mark.parametrize(
    "column",
    [
        UidColumn(b"1", None, [], [b"2"]),
        UidColumn(b"1", None, [encode_ints(np.arange(2))] * 2, []),
        UidColumn(b"1", encode_ints(np.array([0, 1])), [encode_ints(np.arange(2))], []),
        UidColumn(b"1", None, [encode_ints(np.arange(2))], [b"1", b"2"]),
    ],
)
def test_impossible_uid_columns_are_refused(column: UidColumn) -> None:
    with pytest.raises(ValueError, match="impossible UID column"):
        Uids.decode(column, 2)
