"""zstd with bounds."""

from __future__ import annotations

import pytest
import zstandard

from dicomfs.errors import DamagedError
from dicomfs.format.compression import compress, compress_if_smaller, decompress


def test_bytes_come_back_with_and_without_a_dictionary() -> None:
    data, dictionary = b"header bytes " * 50, b"header bytes of a neighbour"
    assert decompress(compress(data, 19), len(data), "x") == data
    assert decompress(compress(data, 19, dictionary), len(data), "x", dictionary) == data
    assert decompress(compress(b"", 3), 0, "x") == b""


def test_what_does_not_gain_is_not_compressed() -> None:
    assert compress_if_smaller(b"short", 19) is None
    assert compress_if_smaller(bytes(1000), 19) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no frame",
        compress(bytes(99), 3),
        compress(bytes(101), 3),
        compress(bytes(100), 3) + b"\0",
        compress(bytes(100), 3)[:-1],
        compress(bytes(50), 3) * 2,
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)),
    ],
)
def test_anything_but_one_frame_of_the_known_length_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decompress(data, 100, "x")


def test_a_frame_that_declares_much_more_allocates_nothing() -> None:
    bomb = compress(bytes(1 << 26), 1)
    with pytest.raises(DamagedError, match="does not declare 100 bytes"):
        decompress(bomb, 100, "x")
