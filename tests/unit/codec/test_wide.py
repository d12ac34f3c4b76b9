"""Words of 32 and 64 bits take what image codecs make of them, come back, and are refused where damaged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec.base import CodecId, Profile
from dicomfs.codec.segment import decode_band, encode_band
from dicomfs.codec.trial import choose
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout
from tests import samples

BODY = samples.volume(4, 48, 64, 3).astype(np.float64)
NOISE = np.random.default_rng(7).normal(0, 1, BODY.shape)
CONTENTS = {
    "scaled integers": (BODY.astype(np.int64) + 2000) * 32_771,
    "negative integers": BODY.astype(np.int32) * 1000,
    "a smooth dose": 1e9 * np.exp(-(np.indices(BODY.shape)[1] ** 2 + np.indices(BODY.shape)[2] ** 2) / 3000),
    "integers as floating point": BODY.astype(np.float32),
    "measurements": (BODY * 0.001 + 1.5 + 0.01 * NOISE).astype(np.float32),
    "either sign and nothing": np.where(NOISE > 0, BODY * NOISE, -0.0).astype(np.float32),
    "doubles": BODY / 3.0,
    "all the same": np.full(BODY.shape, 7.25),
    "no numbers": np.where(NOISE > 1, np.nan, np.where(NOISE < -1, -np.inf, BODY)).astype(np.float32),
}


def banded(name: str, big_endian: bool = False) -> tuple[PixelLayout, npt.NDArray[np.uint8]]:
    values = CONTENTS[name]
    kind = values.dtype.kind if values.dtype.kind == "f" and "dose" not in name else "i"
    if kind == "i":
        values = values.astype(np.uint32 if values.min() >= 0 else np.int32)
    words = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    size = 8 * words.itemsize
    layout = PixelLayout(
        48, 64, 1, size, size, size - 1, values.dtype.kind == "i", big_endian, is_float=kind == "f"
    )
    return layout, np.ascontiguousarray(words).reshape(4, -1).view(np.uint8)


@pytest.mark.parametrize("codec", [CodecId.FAST, CodecId.DENSE, CodecId.JPEGLS])
@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("big_endian", [False, True])
def test_wide_words_come_back(name: str, codec: CodecId, big_endian: bool) -> None:
    layout, raw = banded(name, big_endian)
    payload = encode_band(raw, layout, 48, codec)
    every = {number: frame.tobytes() for number, frame in enumerate(raw)}
    assert decode_band(payload, layout, 48, 4, codec) == every
    assert decode_band(payload, layout, 48, 4, codec, {2}) == {2: every[2]}


@pytest.mark.parametrize(
    "name, gain",
    [
        ("scaled integers", 1.5),
        ("negative integers", 1.5),
        ("a smooth dose", 1.3),
        ("integers as floating point", 1.4),
        ("measurements", 1.02),
    ],
)
def test_the_trial_finds_what_zstandard_cannot(name: str, gain: float) -> None:
    layout, raw = banded(name)
    trial = choose([raw], layout, Profile.DENSE, single=False)
    chosen = len(encode_band(raw, layout, 48, trial.codec, trial.settings))
    assert gain * chosen < len(encode_band(raw, layout, 48, CodecId.ZSTD, trial.settings))


@pytest.mark.parametrize("name", CONTENTS)
def test_dense_is_never_larger_than_fast(name: str) -> None:
    layout, raw = banded(name)
    dense, fast = (len(encode_band(raw, layout, 48, codec)) for codec in (CodecId.DENSE, CodecId.FAST))
    assert dense <= fast


@pytest.mark.parametrize("name", ["scaled integers", "measurements", "a smooth dose"])
def test_a_damaged_header_is_a_declared_error_or_gives_other_words(name: str) -> None:
    layout, raw = banded(name)
    payload = encode_band(raw, layout, 48, CodecId.FAST)
    refused = 0
    for at in range(40):
        for value in (0, 0x55, 0xFF):
            damaged = bytearray(payload)
            damaged[at] = value
            try:
                found = decode_band(bytes(damaged), layout, 48, 4, CodecId.FAST)
            except CodecError:
                refused += 1
                continue
            assert all(len(frame) == layout.frame_bytes for frame in found.values())
    assert refused > 20
    for length in range(0, len(payload), 97):
        with pytest.raises(CodecError):
            decode_band(payload[:length], layout, 48, 4, CodecId.FAST)
