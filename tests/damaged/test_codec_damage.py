"""Damaged payloads give a declared error or other samples of the right size, never anything else."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dicomfs.codec.base import CodecId, join_streams
from dicomfs.codec.segment import decode_band, encode_band
from dicomfs.codec.zstd import squeeze
from dicomfs.errors import CodecError, DamagedError
from dicomfs.model import PixelLayout

ROWS, COLUMNS, FRAMES = 40, 48, 4
DEPTHS = {"grey": (1, 16), "overlay": (1, 16), "bytes": (1, 8), "colour": (3, 8)}


def band(kind: str, codec: CodecId) -> tuple[PixelLayout, bytes]:
    samples, allocated = DEPTHS[kind]
    layout = PixelLayout(
        ROWS, COLUMNS, samples, allocated, min(12, allocated), min(11, allocated - 1), signed=False
    )
    rng = np.random.default_rng(5)
    size = (FRAMES, ROWS, COLUMNS * samples)
    words = np.cumsum(rng.integers(-2, 3, size), axis=2) + 120
    if kind == "overlay":
        words |= (rng.random(size) < 0.1).astype(np.int64) << 15
    raw = words.astype(f"<u{allocated // 8}").view(np.uint8).reshape(FRAMES, -1)
    return layout, encode_band(raw, layout, ROWS, codec)


def decode(payload: bytes, layout: PixelLayout, codec: CodecId) -> None:
    """Decode; what comes out must at least have the right size."""
    try:
        found = decode_band(payload, layout, ROWS, FRAMES, codec)
    except (CodecError, DamagedError):
        return
    assert list(found) == list(range(FRAMES))
    assert {len(frame) for frame in found.values()} == {layout.frame_bytes}


CASES = [(codec, kind) for codec in CodecId for kind in DEPTHS]


@pytest.mark.parametrize("codec, kind", CASES, ids=str)
def test_a_truncated_payload_is_a_declared_error(codec: CodecId, kind: str) -> None:
    layout, payload = band(kind, codec)
    # The last bytes of an arithmetic coder may say nothing.
    end = len(payload) - (16 if codec is CodecId.DENSE else 1)
    for length in {0, 1, 2, 15, 16, 20, len(payload) // 2, end}:
        with pytest.raises((CodecError, DamagedError)):
            decode_band(payload[:length], layout, ROWS, FRAMES, codec)


@pytest.mark.parametrize("codec, kind", CASES, ids=str)
def test_flipped_and_replaced_bytes_never_escape(codec: CodecId, kind: str) -> None:
    layout, payload = band(kind, codec)
    rng = random.Random(7)
    for _ in range(150):
        damaged = bytearray(payload)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(rng.choice([24, 90, len(damaged)]))] = rng.randrange(256)
        cut = rng.randrange(len(damaged))
        decode(bytes(damaged), layout, codec)
        decode(bytes(damaged[:cut] + damaged[cut + rng.randint(0, 9) :]), layout, codec)


@pytest.mark.parametrize("codec", [codec for codec in CodecId if codec is not CodecId.RAW], ids=str)
def test_a_payload_of_another_codec_is_a_declared_error(codec: CodecId) -> None:
    for other in CodecId:
        layout, payload = band("grey", other)
        if other is not codec:
            decode(payload, layout, codec)


@pytest.mark.parametrize("codec", [CodecId.JPEGLS, CodecId.JPEGXL, CodecId.FFV1, CodecId.HEVC], ids=str)
def test_a_stream_of_another_size_is_refused(codec: CodecId) -> None:
    large = PixelLayout(400, 480, 1, 16, 12, 11, signed=False)
    raw = (np.arange(FRAMES * large.frame_bytes // 2) % 300).astype("<u2").view(np.uint8).reshape(FRAMES, -1)
    payload = encode_band(raw, large, 400, codec)
    small = PixelLayout(ROWS, COLUMNS, 1, 16, 12, 11, signed=False)
    if codec is CodecId.FFV1:
        # An FFV1 stream does not say its size: the caller's holds, and so do its bounds.
        decode(payload, small, codec)
        return
    with pytest.raises(CodecError):
        decode_band(payload, small, ROWS, FRAMES, codec)


def test_a_compression_bomb_is_refused_at_the_size_of_the_band() -> None:
    layout = PixelLayout(ROWS, COLUMNS, 1, 8, 8, 7, signed=False)
    bomb = b"\x01\x00" + squeeze(bytes(1 << 26))
    with pytest.raises(CodecError):
        decode_band(bomb, layout, ROWS, FRAMES, CodecId.ZSTD)


def test_stream_lengths_beyond_the_payload_are_refused() -> None:
    layout = PixelLayout(ROWS, COLUMNS, 1, 16, 12, 11, signed=False)
    _, payload = band("grey", CodecId.JPEGXL)
    for lengths in (b"\xff\xff\xff\xff\x7f" * FRAMES, b"\xff" * 40, join_streams([b""] * FRAMES)):
        with pytest.raises(CodecError):
            decode_band(payload[:17] + lengths, layout, ROWS, FRAMES, CodecId.JPEGXL)
