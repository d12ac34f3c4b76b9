"""Damaged codestreams, recipes and stored JPEG XL: a declared error or bytes, never anything else."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest

from dicomfs.codec.bitstream.base import Method
from dicomfs.codec.bitstream.markers import parse
from dicomfs.codec.bitstream.registry import (
    method_of,
    piece_recipe,
    read_checked,
    write_frame,
    write_transcoded,
)
from dicomfs.codec.bitstream.transcode import may_transcode, transcode
from dicomfs.errors import CodecError
from tests.codestreams import hint, jpeg, jpeg_lossless, jpeg_ls_stream, rle, smooth

GREY, COLOUR = smooth(24, 30), smooth(20, 21, channels=3, bits=8)
STREAMS = {
    "jpeg lossless": (Method.JPEG_LOSSLESS, jpeg_lossless(GREY, predictor=6), GREY),
    "jpeg lossless colour": (Method.JPEG_LOSSLESS, jpeg_lossless(COLOUR), COLOUR),
    "jpeg-ls": (Method.JPEG_LS, jpeg_ls_stream(GREY), GREY),
    "jpeg-ls colour": (Method.JPEG_LS, jpeg_ls_stream(COLOUR, bits=8), COLOUR),
    "rle": (Method.RLE, rle(GREY, seed=4), GREY),
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(max(1, len(found)))
        way = rng.randrange(4)
        if way == 0 and found:
            found[at % len(found)] = rng.choice((0, 255, rng.randrange(256)))
        elif way == 1:
            del found[at : at + rng.randint(1, 9)]
        elif way == 2:
            found[at:at] = rng.randbytes(rng.randint(1, 9))
        else:
            del found[max(1, at) :]
    return bytes(found)


@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_codestream_is_refused_or_comes_back_as_it_is(name: str) -> None:
    method, stream, image = STREAMS[name]
    rng = random.Random(11)
    for _ in range(200):
        data = damaged(stream, rng)
        with contextlib.suppress(CodecError):
            found = method_of(data, hint(image), run_length=method is Method.RLE)
            reading = read_checked(found, data, hint(image))
            recipe = piece_recipe(reading.recipe, [])
            assert write_frame(found, reading.raw, reading.layout, recipe) == data


@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_recipe_is_refused_or_gives_bytes(name: str) -> None:
    method, stream, image = STREAMS[name]
    reading = read_checked(method, stream, hint(image))
    recipe = piece_recipe(reading.recipe, [(0, b"12345678")])
    rng = random.Random(12)
    for _ in range(300):
        with contextlib.suppress(CodecError):
            made = write_frame(method, reading.raw, reading.layout, damaged(recipe, rng))
            assert len(made) < 100 * len(stream)


def test_a_damaged_jpeg_is_refused_or_comes_back_as_it_is() -> None:
    stream, rng = jpeg(smooth(40, 48, channels=3, bits=8)), random.Random(13)
    for _ in range(150):
        data = damaged(stream, rng)
        if may_transcode(data):
            with contextlib.suppress(CodecError):
                stored, recipe = transcode(data)
                assert write_transcoded(16, stored, piece_recipe(recipe, []), len(data)) == data


def test_damaged_stored_bytes_are_refused_or_give_bytes() -> None:
    stream = jpeg(smooth(40, 48, channels=3, bits=8))
    stored, recipe = transcode(stream)
    rng = random.Random(14)
    for _ in range(150):
        with contextlib.suppress(CodecError):
            write_transcoded(16, damaged(stored, rng), piece_recipe(recipe, []), len(stream))
        with contextlib.suppress(CodecError):
            write_transcoded(16, stored, damaged(piece_recipe(recipe, []), rng), len(stream))


def test_a_frame_header_of_a_gigantic_image_is_refused_before_anything_is_decoded() -> None:
    for name in ("jpeg lossless", "jpeg-ls"):
        _, stream, image = STREAMS[name]
        rows_at = stream.index(b"\x00\x18\x00\x1e")
        huge = stream[:rows_at] + b"\xff\xff\xff\xff" + stream[rows_at + 4 :]
        assert parse(huge).frame.rows == 65535
        with pytest.raises(CodecError, match="large"):
            read_checked(method_of(huge, hint(image), run_length=False), huge, hint(image))


def test_random_bytes_are_refused() -> None:
    rng = random.Random(15)
    raw = np.zeros(GREY.shape, GREY.dtype).tobytes()
    for _ in range(300):
        data = rng.randbytes(rng.randint(0, 200))
        for method in (1, 2, 3):
            with contextlib.suppress(CodecError):
                write_frame(method, raw, hint(GREY), data)
        with contextlib.suppress(CodecError):
            write_transcoded(16, data, data, 100)
