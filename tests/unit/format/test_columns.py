"""Columns of integers and texts: short forms, bounded decoding."""

from __future__ import annotations

import pytest

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.columns import (
    IntColumn,
    TextColumn,
    decode_ints,
    decode_texts,
    encode_ints,
    encode_texts,
)

_EXTREMES = [-(1 << 63), (1 << 63) - 1, 0, -1, 1, 255, 256, -(1 << 63)]


@pytest.mark.parametrize(
    "values",
    [[], [5], [-5, -5, -5], [3, 2, 1, 0], [-(1 << 63), 0], _EXTREMES, [0, 0, 0, 1], [*list(range(300)), 7]],
)
def test_integers_come_back(values: list[int]) -> None:
    assert decode_ints(encode_ints(values), len(values), "x").tolist() == values


def test_regular_columns_take_no_room() -> None:
    assert encode_ints([7] * 1000).data == b""
    assert encode_ints(list(range(1000, 0, -1))).data == b""
    assert encode_ints([k % 3 for k in range(100)]).width == 1


@pytest.mark.parametrize(
    "column, count",
    [
        (IntColumn(2, width=1, data=b"abc"), 2),
        (IntColumn(2, width=3, data=b"abc"), 1),
        (IntColumn(3, width=2, data=b"ab"), 3),
        (IntColumn(3), 0),
    ],
)
def test_integer_columns_of_another_length_are_refused(column: IntColumn, count: int) -> None:
    with pytest.raises(DamagedError):
        decode_ints(column, count, "x")


def test_integers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(FormatError):
        encode_ints([1 << 63])


@pytest.mark.parametrize("texts", [[], [""], ["1.2.3", "1.2.30", "1.2", ""], ["é", "è", "日本"]])
def test_texts_come_back(texts: list[str]) -> None:
    assert decode_texts(encode_texts(texts), len(texts), "x") == texts


_NONE = IntColumn(0)


@pytest.mark.parametrize(
    "column",
    [
        TextColumn(_NONE, IntColumn(0, 2), b"a"),
        TextColumn(_NONE, IntColumn(0, 1), b"ab"),
        TextColumn(IntColumn(0, 1), _NONE, b""),
        TextColumn(_NONE, IntColumn(0, -1), b""),
        TextColumn(_NONE, IntColumn(0, 1), b"\xff"),
        TextColumn(_NONE, IntColumn(0, 2000), b"a" * 2000),
    ],
)
def test_impossible_texts_are_refused(column: TextColumn) -> None:
    with pytest.raises(DamagedError):
        decode_texts(column, 1, "x")
