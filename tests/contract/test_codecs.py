"""What every codec promises: whatever it takes comes back byte for byte, whole or frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec.base import FROM_DISK, ON_DISK, CodecId
from dicomfs.codec.registry import reasons
from dicomfs.codec.segment import decode_band, encode_band
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

Raw = npt.NDArray[np.uint8]

SHAPES = [(1, 1, 1), (1, 1, 300), (2, 7, 5), (1, 64, 64), (4, 64, 64), (7, 33, 65), (3, 300, 400)]
CONTENTS = ["constant", "noise", "extremes", "smooth", "repeated", "padded"]
WIDE_ENOUGH = 64


def layout_of(shape: tuple[int, int, int], samples: int, allocated: int, stored: int) -> PixelLayout:
    return PixelLayout(shape[1], shape[2], samples, allocated, stored, stored - 1, signed=False)


def content(kind: str, shape: tuple[int, int, int], samples: int, allocated: int, stored: int) -> Raw:
    """Return (frames, frame_bytes) of made-up samples."""
    rng = np.random.default_rng(20)
    size, top = (*shape, samples), (1 << stored) - 1
    if kind == "constant":
        values = np.full(size, top // 3)
    elif kind == "noise":
        values = rng.integers(0, top, size, endpoint=True)
    elif kind == "extremes":
        values = rng.choice([0, top], size)
    elif kind == "smooth":
        values = np.abs(np.cumsum(rng.integers(-3, 4, size), axis=2)) % (top + 1)
    elif kind == "repeated":
        values = np.repeat(rng.integers(0, top, (1, *size[1:]), endpoint=True), shape[0], axis=0)
    else:
        values = np.where(rng.random(size) < 0.2, 0, top - rng.integers(0, 9, size) % (top + 1))
    return values.astype(f"<u{allocated // 8}").view(np.uint8).reshape(shape[0], -1)


def assert_comes_back(raw: Raw, layout: PixelLayout, codec: CodecId) -> bool:
    """Check the whole band and single frames; False when the codec refused it."""
    try:
        payload = encode_band(raw, layout, layout.rows, codec)
    except CodecError:
        return False
    whole = decode_band(payload, layout, layout.rows, len(raw), codec)
    assert list(whole) == list(range(len(raw)))
    assert all(whole[index] == raw[index].tobytes() for index in whole)
    for index in {0, len(raw) - 1}:
        assert decode_band(payload, layout, layout.rows, len(raw), codec, [index]) == {
            index: raw[index].tobytes()
        }
    assert decode_band(memoryview(payload), layout, layout.rows, len(raw), codec, []) == {}
    return True


def must_take(codec: CodecId, shape: tuple[int, int, int], samples: int, stored: int, kind: str) -> bool:
    """Say which bands a codec may not refuse: what packing counts on."""
    if codec in (CodecId.RAW, CodecId.ZSTD) or kind == "constant":
        return True
    image = min(shape[1:]) >= WIDE_ENOUGH
    if codec is CodecId.JPEGLS:
        return image and kind == "smooth"
    if codec is CodecId.HEVC:
        return image and stored <= 12
    if codec in (CodecId.FAST, CodecId.DENSE):
        return True
    return image and samples in (1, 3)


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
@pytest.mark.parametrize(
    "samples, allocated, stored", [(1, 8, 8), (1, 16, 12), (1, 16, 16), (3, 8, 8), (3, 16, 10)]
)
def test_what_a_codec_takes_comes_back_byte_for_byte(
    codec: CodecId, shape: tuple[int, int, int], kind: str, samples: int, allocated: int, stored: int
) -> None:
    raw = content(kind, shape, samples, allocated, stored)
    taken = assert_comes_back(raw, layout_of(shape, samples, allocated, stored), codec)
    assert taken or not must_take(codec, shape, samples, stored, kind)


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("stored", range(1, 17))
def test_every_depth_comes_back(codec: CodecId, samples: int, stored: int) -> None:
    shape, allocated = (4, 66, 70), 8 if stored <= 8 else 16
    raw = content("smooth", shape, samples, allocated, stored)
    taken = assert_comes_back(raw, layout_of(shape, samples, allocated, stored), codec)
    assert taken or not must_take(codec, shape, samples, stored, "smooth")


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("allocated", [32, 64])
def test_wide_words_and_odd_sample_counts_come_back_from_every_codec(
    codec: CodecId, samples: int, allocated: int
) -> None:
    shape = (3, 20, 30)
    raw = content("noise", shape, samples, allocated, 30)
    assert assert_comes_back(raw, layout_of(shape, samples, allocated, 30), codec)


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
def test_a_band_without_bytes_comes_back_empty(codec: CodecId) -> None:
    layout = PixelLayout(0, 0, 1, 16, 16, 15, signed=False)
    payload = encode_band(np.zeros((2, 0), np.uint8), layout, 0, codec)
    assert decode_band(payload, layout, 0, 2, codec) == {0: b"", 1: b""}


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
def test_frames_outside_the_band_are_a_declared_error(codec: CodecId) -> None:
    layout = layout_of((2, 64, 64), 1, 8, 8)
    payload = encode_band(content("smooth", (2, 64, 64), 1, 8, 8), layout, 64, codec)
    for wanted in ([2], [-1], [0, 7]):
        with pytest.raises(CodecError):
            decode_band(payload, layout, 64, 2, codec, wanted)


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name.lower())
def test_the_same_frames_give_the_same_payload(codec: CodecId) -> None:
    layout = layout_of((5, 64, 64), 1, 16, 12)
    raw = content("smooth", (5, 64, 64), 1, 16, 12)
    assert encode_band(raw, layout, 64, codec) == encode_band(raw, layout, 64, codec)


def test_no_codec_of_this_version_is_missing_here() -> None:
    assert set(reasons().values()) == {""}


def test_stored_ids_never_change() -> None:
    assert {codec.name: number for codec, number in ON_DISK.items()} == {
        "RAW": 0,
        "ZSTD": 1,
        "JPEGLS": 2,
        "JPEGXL": 3,
        "FFV1": 4,
        "HEVC": 5,
        "FAST": 7,
        "DENSE": 8,
    }
    assert {FROM_DISK[number] for number in ON_DISK.values()} == set(CodecId)
