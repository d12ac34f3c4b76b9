"""Arithmetic of sealed objects."""

from __future__ import annotations

import pytest

from dicomfs.crypto.segments import (
    OVERHEAD,
    SEGMENT_BYTES,
    STORED_SEGMENT,
    KeyReference,
    Sealer,
    opened,
    plain_size,
    segments_of,
    stored_size,
)
from dicomfs.errors import DamagedError
from dicomfs.model import ObjectKey

SIZES = [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 5 * SEGMENT_BYTES, 10**12 + 7]
NAME, SECRET = ObjectKey("pixel/00/name"), bytes(range(32))
REFERENCE = KeyReference(7, 3)


@pytest.mark.parametrize("size", SIZES)
def test_plain_and_stored_sizes_follow_from_each_other(size: int) -> None:
    assert plain_size(stored_size(size)) == size
    assert stored_size(size) == size + OVERHEAD * segments_of(size)


@pytest.mark.parametrize("stored", [0, 1, OVERHEAD - 1, STORED_SEGMENT + 1, STORED_SEGMENT + OVERHEAD])
def test_impossible_stored_sizes_have_a_plain_size_that_no_read_confirms(stored: int) -> None:
    assert 0 <= plain_size(stored) <= stored
    assert stored_size(plain_size(stored)) != stored or stored == OVERHEAD


def test_an_empty_object_is_one_segment_that_is_proven() -> None:
    data = Sealer(SECRET, REFERENCE, NAME, 0).seal(memoryview(b""))
    assert len(data) == OVERHEAD
    assert opened(data, NAME, 0, lambda _: SECRET).plain == b""
    with pytest.raises(DamagedError):
        opened(data, ObjectKey("pixel/00/other"), 0, lambda _: SECRET)
    with pytest.raises(DamagedError):
        opened(data, NAME, 0, lambda _: bytes(32))


def test_the_key_that_a_segment_names_is_asked_for() -> None:
    asked = []

    def find(reference: KeyReference) -> bytes:
        asked.append(reference)
        return SECRET

    run = opened(Sealer(SECRET, REFERENCE, NAME, 4).seal(memoryview(b"abcd")), NAME, 0, find)
    assert (run.plain, run.length, run.reference, asked) == (b"abcd", 4, REFERENCE, [REFERENCE])


def test_the_same_bytes_are_never_sealed_to_the_same_bytes() -> None:
    sealed = {Sealer(SECRET, REFERENCE, NAME, 4).seal(memoryview(b"abcd")) for _ in range(10)}
    assert len(sealed) == 10
