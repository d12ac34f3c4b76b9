"""The framing of streams."""

from __future__ import annotations

import pytest

from dicomfs.codec.base import join_streams, put_varint, split_streams
from dicomfs.errors import CodecError


@pytest.mark.parametrize("streams", [[], [b""], [b"a", b"", b"b" * 127, b"c" * 128, b"d" * 70000]], ids=len)
def test_streams_come_apart_as_they_were_joined(streams: list[bytes]) -> None:
    assert [
        bytes(part) for part in split_streams("x", memoryview(join_streams(streams)), len(streams))
    ] == streams


@pytest.mark.parametrize(
    "value, stored", [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16384, b"\x80\x80\x01")]
)
def test_lengths_are_leb128(value: int, stored: bytes) -> None:
    assert put_varint(value) == stored


@pytest.mark.parametrize(
    "payload", [b"", b"\x80", b"\x01", b"\x01ab", b"\xff" * 30, b"\xff\xff\xff\xff\x7fa"]
)
def test_impossible_lengths_are_refused(payload: bytes) -> None:
    with pytest.raises(CodecError):
        split_streams("x", memoryview(payload), 1)
