"""Codestreams read as frames and written again, bit for bit."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dicomfs.codec.bitstream.base import Method
from dicomfs.codec.bitstream.registry import method_of, piece_recipe, read_checked, write_frame
from dicomfs.codec.bitstream.rle import policy_runs
from dicomfs.errors import CodecError
from tests.codestreams import (
    Words,
    hint,
    insert_comment,
    jpeg,
    jpeg_lossless,
    jpeg_ls_stream,
    packbits,
    rle,
    smooth,
)
from tests.independent_codestreams import _policy

GREY, COLOUR, BYTES = smooth(37, 51), smooth(20, 31, channels=3, bits=8), smooth(33, 40, bits=8)


def check(stream: bytes, image: Words, method: Method) -> bytes:
    """Read and write; the recipe."""
    found = method_of(stream, hint(image), run_length=method is Method.RLE)
    assert found is method
    reading = read_checked(method, stream, hint(image))
    assert reading.raw == image.tobytes()
    assert (reading.layout.rows, reading.layout.columns) == image.shape[:2]
    assert write_frame(method, reading.raw, reading.layout, piece_recipe(reading.recipe, [])) == stream
    return reading.recipe


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("image", [GREY, COLOUR, BYTES], ids=["grey", "colour", "bytes"])
def test_jpeg_lossless_comes_back_with_every_predictor(image: Words, predictor: int) -> None:
    check(jpeg_lossless(image, predictor=predictor), image, Method.JPEG_LOSSLESS)


def test_jpeg_lossless_takes_differences_of_all_sizes() -> None:
    noise = np.random.default_rng(1).integers(0, 1 << 16, (64, 64)).astype(np.uint16)
    noise[0, :4] = (0, 32768, 0, 65535)
    check(jpeg_lossless(noise), noise, Method.JPEG_LOSSLESS)


def test_comments_and_stray_bytes_are_kept_in_the_recipe() -> None:
    stream = insert_comment(jpeg_lossless(GREY)) + b"\0\xff\xd8stray"
    recipe = check(stream, GREY, Method.JPEG_LOSSLESS)
    assert b"written for Sample^Patient" in recipe
    assert recipe.endswith(b"stray")


def test_a_last_byte_filled_with_zeros_is_kept() -> None:
    for seed in range(9):
        image = smooth(16, 16, seed=seed)
        stream = bytearray(jpeg_lossless(image))
        last = len(stream) - 3
        ones = len(f"{stream[last]:08b}") - len(f"{stream[last]:08b}".rstrip("1"))
        if not 1 <= ones <= 7:
            continue
        stream[last] &= 0xFE
        try:
            check(bytes(stream), image, Method.JPEG_LOSSLESS)
        except AssertionError:
            continue  # the bit belonged to a sample
        return
    pytest.fail("no image whose last byte is filled")


@pytest.mark.parametrize("way", [0, 1, 2])
def test_jpeg_ls_comes_back(way: int) -> None:
    check(jpeg_ls_stream(GREY), GREY, Method.JPEG_LS)
    planes = COLOUR if way else np.ascontiguousarray(np.moveaxis(COLOUR, 2, 0)).reshape(20, 31, 3)
    stream = jpeg_ls_stream(planes, bits=8, way=way)
    check(insert_comment(stream) + b"\0", COLOUR, Method.JPEG_LS)


def test_near_lossless_jpeg_ls_has_no_reading() -> None:
    with pytest.raises(CodecError, match="near-lossless"):
        read_checked(Method.JPEG_LS, jpeg_ls_stream(GREY, near=2), hint(GREY))


@pytest.mark.parametrize("image", [GREY, COLOUR, BYTES, GREY.astype(np.uint32) << 7], ids=str)
def test_run_lengths_come_back(image: Words) -> None:
    check(rle(image), image, Method.RLE)


def test_an_encoder_that_follows_no_policy_is_followed() -> None:
    image = np.repeat(np.repeat(smooth(16, 20, bits=8), 5, axis=1), 4, axis=0)
    for seed in range(5):
        recipe = check(rle(image, seed=seed), image, Method.RLE)
        assert len(recipe) > 8


def test_an_encoder_that_is_nothing_like_a_policy_is_not_worth_it() -> None:
    image = smooth(64, 64, bits=8)
    plane = image.tobytes()
    ones = b"".join(b"\0" + plane[at : at + 1] for at in range(len(plane)))
    stream = struct.pack("<16I", 1, 64, *[0] * 14) + ones
    with pytest.raises(CodecError, match="unusual"):
        read_checked(Method.RLE, stream, hint(image))


@pytest.mark.parametrize("policy", range(8))
def test_policies_are_those_of_the_format(policy: int) -> None:
    rng = np.random.default_rng(policy)
    for width in (1, 2, 3, 17, 300):
        plane = rng.integers(0, 2, 12 * width).astype(np.uint8)
        plane[: len(plane) // 2] = np.repeat(plane, 7)[: len(plane) // 2]
        assert policy_runs(plane, width, policy).controls.tolist() == _policy(plane.tobytes(), width, policy)


def test_the_plain_rules_are_a_policy() -> None:
    assert packbits(b"\1\1\1\2\3", 5) == bytes([254, 1, 1, 2, 3])


def test_a_frame_in_several_fragments_gets_its_item_headers_back() -> None:
    stream = jpeg_lossless(GREY)
    reading = read_checked(Method.JPEG_LOSSLESS, stream, hint(GREY))
    headers = [(0, b"\xfe\xff\x00\xe0\x00\x00\x00\x00"), (100, b"8 bytes."), (len(stream), b"the last")]
    made = write_frame(1, reading.raw, reading.layout, piece_recipe(reading.recipe, headers))
    assert made == headers[0][1] + stream[:100] + headers[1][1] + stream[100:] + headers[2][1]


def test_other_codestreams_have_no_reading() -> None:
    for stream in (jpeg(BYTES), b"", b"\xff\xd8", b"\xff\x4f\xff\x51" + bytes(50), b"\0" * 80):
        with pytest.raises(CodecError):
            read_checked(method_of(stream, hint(BYTES), run_length=False), stream, hint(BYTES))


def test_unknown_methods_and_foreign_frames_are_refused() -> None:
    reading = read_checked(Method.JPEG_LOSSLESS, jpeg_lossless(GREY), hint(GREY))
    recipe = piece_recipe(reading.recipe, [])
    for method, raw, layout in (
        (0, reading.raw, reading.layout),
        (9, reading.raw, reading.layout),
        (16, reading.raw, reading.layout),
        (2, reading.raw, reading.layout),
        (1, reading.raw[:-1], reading.layout),
        (1, BYTES.tobytes(), hint(BYTES)),
    ):
        with pytest.raises(CodecError):
            write_frame(method, raw, layout, recipe)
