"""Stepping over values of undefined length finds their end, wherever it lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom import encoding
from dicomfs.dicom.encoding import ENCODINGS, Budget, find, only_zeros, read_header, skip_undefined, trial
from tests import samples
from tests.samples import BIG, LITTLE, PLAIN

EXPLICIT = ENCODINGS[True, False]


@given(
    st.binary(max_size=4000), st.binary(min_size=1, max_size=4), st.integers(0, 4000), st.integers(0, 4000)
)
def test_find_agrees_with_bytes_find(data: bytes, needle: bytes, start: int, stop: int) -> None:
    stop = min(stop, len(data))
    start = min(start, stop)
    assert find(memoryview(data), needle, start, stop) == data.find(needle, start, stop)


@pytest.mark.parametrize("at", range(500, 530))
def test_a_needle_across_the_end_of_a_piece_is_found(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SEARCH_START", 8)
    data = bytes(at) + b"needle" + bytes(50)
    assert find(memoryview(data), b"needle", 0, len(data)) == at
    assert find(memoryview(data), b"needle", 0, at + 5) == -1


def test_zeros_are_judged_to_the_last_byte() -> None:
    data = memoryview(bytes(3 * encoding.SEARCH_CHUNK) + b"\1")
    assert only_zeros(data, 0, len(data) - 1)
    assert not only_zeros(data, 0, len(data))


@pytest.mark.parametrize(
    "how,explicit,big", [(LITTLE, True, False), (PLAIN, False, False), (BIG, True, True)]
)
def test_a_header_is_read_in_its_encoding(how: samples.Writing, explicit: bool, big: bool) -> None:
    element = how.element(0x00080060, "CS", "CT")
    header = read_header(memoryview(element), 0, len(element), ENCODINGS[explicit, big])
    assert header == (0x00080060, b"CS" if explicit else b"", 8, 2)


@pytest.mark.parametrize("size", range(8))
def test_less_than_a_header_is_none(size: int) -> None:
    assert read_header(memoryview(bytes(size)), 0, size, EXPLICIT) is None


def test_the_right_encoding_scores_best() -> None:
    for how, key in ((LITTLE, (True, False)), (PLAIN, (False, False)), (BIG, (True, True))):
        data = samples.write(samples.identity(), how)
        scores = {k: trial(memoryview(data), 0, len(data), e) for k, e in ENCODINGS.items()}
        assert max(scores, key=lambda k: scores[k]) == key


@pytest.mark.parametrize("how", [LITTLE, PLAIN, BIG])
def test_nested_sequences_of_all_lengths_are_stepped_over(how: samples.Writing) -> None:
    inner = how.sequence(
        0x00081150, [how.element(0x00081155, "UI", "1.2")] * 2, undefined=True, open_items=True
    )
    for open_items in (False, True):
        value = how.sequence(0x00081140, [inner, b"", inner], undefined=True, open_items=open_items)
        start = 12 if how.explicit else 8
        extent = skip_undefined(
            memoryview(value + b"next"), start, len(value) + 4, ENCODINGS[how.explicit, how.big], Budget()
        )
        assert extent.closed
        assert extent.next == len(value)
        assert extent.value_end == len(value) - 8
