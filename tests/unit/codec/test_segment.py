"""The cut of stacks into segments and bands, and what bands cost."""

from __future__ import annotations

import numpy as np
import pytest

from dicomfs.codec.base import CodecId, Profile
from dicomfs.codec.segment import band_rows, decode_band, encode_band, segment_frames
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout


def grey(rows: int, columns: int) -> PixelLayout:
    return PixelLayout(rows, columns, 1, 16, 12, 11, signed=False)


@pytest.mark.parametrize(
    "layout, rows",
    [
        (grey(512, 512), 512),
        (grey(512, 1024), 512),
        (grey(513, 1024), 256),
        (grey(3000, 2500), 104),
        (grey(40, 400_000), 16),
        (grey(4, 400_000), 4),
        (PixelLayout(0, 0, 1, 16, 16, 15, signed=False), 1),
    ],
    ids=str,
)
def test_frames_over_one_mebibyte_have_bands_of_half_of_that(layout: PixelLayout, rows: int) -> None:
    assert band_rows(layout, 3) == rows


@pytest.mark.parametrize(
    "layout, profile, frames",
    [
        (grey(512, 512), Profile.FAST, 16),
        (grey(512, 512), Profile.DENSE, 8),
        (grey(64, 64), Profile.ARCHIVE, 512),
        (grey(3000, 2500), Profile.FAST, 1),
        (PixelLayout(0, 0, 1, 16, 16, 15, signed=False), Profile.DENSE, 4 << 20),
    ],
    ids=str,
)
def test_segments_hold_as_many_frames_as_the_profile_allows(
    layout: PixelLayout, profile: Profile, frames: int
) -> None:
    assert segment_frames(layout, profile) == frames


def test_a_band_of_equal_words_takes_a_few_bytes() -> None:
    for codec in set(CodecId) - {CodecId.RAW, CodecId.ZSTD}:
        assert len(encode_band(np.full((4, 2 * 64 * 64), 7, np.uint8), grey(64, 64), 64, codec)) < 20


def test_part_of_the_rows_is_a_band() -> None:
    raw = (np.arange(2 * 24 * 64 * 2) % 251).astype(np.uint8).reshape(2, -1)
    for codec in (CodecId.RAW, CodecId.ZSTD, CodecId.JPEGLS, CodecId.JPEGXL):
        found = decode_band(encode_band(raw, grey(100, 64), 24, codec), grey(100, 64), 24, 2, codec)
        assert found == {0: raw[0].tobytes(), 1: raw[1].tobytes()}


def test_bytes_that_are_not_a_band_of_the_layout_are_refused() -> None:
    with pytest.raises(CodecError):
        encode_band(np.zeros((2, 100), np.uint8), grey(8, 8), 8, CodecId.ZSTD)
