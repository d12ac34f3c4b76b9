"""JPEG as JPEG XL and back."""

from __future__ import annotations

import pytest

from dicomfs.codec.bitstream.base import Method
from dicomfs.codec.bitstream.registry import piece_recipe, write_transcoded
from dicomfs.codec.bitstream.transcode import may_transcode, restore, transcode
from dicomfs.errors import CodecError
from tests.codestreams import insert_comment, jpeg, jpeg_lossless, smooth

GREY, COLOUR = smooth(80, 96, bits=8), smooth(64, 64, channels=3, bits=8)


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("tail", [b"", b"\0", b"stray"])
def test_a_jpeg_comes_back_with_its_segments_and_what_follows(image: object, tail: bytes) -> None:
    stream = insert_comment(jpeg(image)) + tail  # type: ignore[arg-type]
    stored, recipe = transcode(stream)
    assert len(stored) < len(stream)
    assert restore(stored, recipe, len(stream)) == stream
    made = write_transcoded(Method.JPEG_TRANSCODED, stored, piece_recipe(recipe, []), len(stream))
    assert made == stream


def test_only_jpeg_of_eight_bits_may_be_transcoded() -> None:
    assert may_transcode(jpeg(GREY))
    for stream in (jpeg_lossless(GREY), b"", jpeg(GREY)[:-2], b"\xff\xd8\xff\xd9"):
        assert not may_transcode(stream)
        with pytest.raises(CodecError):
            transcode(stream)


def test_an_image_larger_than_its_codestream_can_hold_is_refused() -> None:
    stored, recipe = transcode(jpeg(GREY))
    with pytest.raises(CodecError, match="larger"):
        restore(stored, recipe, 10)
