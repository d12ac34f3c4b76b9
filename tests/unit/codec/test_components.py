"""Colour apart: every transform comes back, is chosen where it pays, and is refused where it cannot be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.codec.base import CodecId, Planes, Settings
from dicomfs.codec.components import APART, FROM_SECOND, PAIRED, decode_components, encode_components
from dicomfs.codec.registry import codec
from dicomfs.codec.segment import encode_band
from dicomfs.codec.trial import Profile, choose
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout
from tests.samples import volume

CODER = codec(CodecId.FAST)


def cine(frames: int = 6) -> npt.NDArray[np.uint8]:
    """A grey body in RGB with a coloured patch, (frames, 64, 80, 3)."""
    grey = (volume(frames, 64, 80, 3) >> 4).astype(np.uint8)
    found = np.repeat(grey[..., None], 3, axis=3)
    found[:, 20:30, 30:50, 0] //= 2
    return found


def decoded(payload: bytes, planes: Planes, bits: int, wanted: list[int]) -> list[int]:
    found = dict(decode_components(CODER, memoryview(payload), planes.shape, planes.dtype, bits, wanted))
    assert all(np.array_equal(found[index], planes[index]) for index in found)
    return list(found)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_samples_come_back_frame_by_frame(data: st.DataObject) -> None:
    samples, bits = data.draw(st.sampled_from([2, 3, 4])), data.draw(st.integers(1, 16))
    shape = tuple(data.draw(st.integers(1, most)) for most in (4, 12, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.integers(0, 1 << bits, (*shape, samples))
    planes: Planes = values.astype(np.uint8) if bits <= 8 else values.astype(np.uint16)
    if data.draw(st.booleans()):
        planes[...] = planes[..., :1]
    payload = encode_components(CODER, planes, bits, Settings())
    assert decoded(payload, planes, bits, list(range(shape[0]))) == list(range(shape[0]))
    assert decoded(payload, planes, bits, [shape[0] - 1]) == [shape[0] - 1]


def test_the_transform_follows_from_the_samples() -> None:
    rgb = cine()
    rng = np.random.default_rng(4)
    unlike = np.stack([rgb[..., 0], rng.integers(0, 256, rgb.shape[:3], np.uint8), rgb[..., 2]], axis=3)
    luminance = rgb[..., 0].reshape(6, 64, 40, 2)
    subsampled = np.concatenate([luminance, np.full((6, 64, 40, 2), 128, np.uint8)], axis=3)
    found = [encode_components(CODER, planes, 8, Settings())[0] for planes in (rgb, unlike, subsampled)]
    assert found == [FROM_SECOND, APART, PAIRED]


@pytest.mark.parametrize("first", [3, 255, PAIRED])
def test_a_transform_that_does_not_go_with_the_samples_is_refused(first: int) -> None:
    payload = bytes([first]) + encode_components(CODER, cine(), 8, Settings())[1:]
    with pytest.raises(CodecError):
        decoded(payload, cine(), 8, [0])


def test_a_payload_without_streams_is_refused() -> None:
    for payload in (b"", b"\0", b"\1\0\0\0"):
        with pytest.raises(CodecError):
            decoded(payload, cine(), 8, [0])


@pytest.mark.parametrize("profile", list(Profile), ids=str)
def test_colour_cine_is_coded_against_its_neighbours(profile: Profile) -> None:
    rgb = cine(16)
    layout = PixelLayout(64, 80, 3, 8, 8, 7, signed=False)
    raw = rgb.reshape(16, -1)
    chosen = choose([raw], layout, profile, single=False)
    assert chosen.codec in (CodecId.FAST, CodecId.DENSE)
    own = len(encode_band(raw, layout, 64, chosen.codec, chosen.settings))
    assert own < len(encode_band(raw, layout, 64, CodecId.JPEGXL, Settings(7)))
