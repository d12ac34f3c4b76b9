"""Any bytes under any hints come back from every codec that takes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.codec.base import CodecId
from dicomfs.codec.planes import parse_header, to_planes, to_raw
from dicomfs.codec.segment import decode_band, encode_band
from dicomfs.codec.trial import Profile, choose
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

Raw = npt.NDArray[np.uint8]


@st.composite
def layouts(draw: Callable[..., int], allocated: tuple[int, ...] = (8, 16, 32, 64)) -> PixelLayout:
    """Draw a layout whose hints may contradict it."""
    bits = draw(st.sampled_from(allocated))
    return PixelLayout(
        rows=draw(st.integers(1, 20)),
        columns=draw(st.integers(1, 20)),
        samples=draw(st.sampled_from([1, 1, 1, 3, 2, 4])),
        bits_allocated=bits,
        bits_stored=draw(st.integers(-1, bits + 2)),
        high_bit=draw(st.integers(-2, bits + 2)),
        signed=bool(draw(st.booleans())),
        big_endian=bool(draw(st.booleans())),
        is_float=bits >= 32 and bool(draw(st.booleans())),
    )


@st.composite
def frames_of(draw: Callable[..., int], layout: PixelLayout) -> Raw:
    """Draw frames: words from a small or large range, moved, shifted, sign-rotated or with bits on top."""
    frames = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = frames * layout.rows * layout.columns * layout.samples
    top = 2 ** draw(st.integers(0, min(layout.bits_allocated, 32)))
    words = rng.integers(0, top, count, dtype=np.int64)
    words = words + draw(st.sampled_from([0, 0, -1024, -(2**15), 5, 2**12]))
    words = np.where(
        rng.random(count) < draw(st.sampled_from([0, 0.3])), draw(st.integers(-(2**15), 2**16)), words
    )
    words = words << draw(st.sampled_from([0, 0, 0, 4]))
    words = words & draw(st.sampled_from([-1, -1, 0xFFF, 0x3FF]))
    words = words | rng.integers(0, 2, count) << draw(st.sampled_from([15, 0, 12, 60]))
    stored = words.astype(f"{'>' if draw(st.booleans()) else '<'}u{layout.bits_allocated // 8}")
    return stored.view(np.uint8).reshape(frames, -1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_encode_then_decode_is_the_identity_for_every_codec(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    raw = data.draw(frames_of(layout))
    wanted = data.draw(st.sets(st.integers(0, len(raw) - 1)))
    for codec in CodecId:
        try:
            payload = encode_band(raw, layout, layout.rows, codec)
        except CodecError:
            assert codec not in (CodecId.RAW, CodecId.ZSTD)
            continue
        assert decode_band(payload, layout, layout.rows, len(raw), codec) == {
            index: frame.tobytes() for index, frame in enumerate(raw)
        }
        assert decode_band(payload, layout, layout.rows, len(raw), codec, wanted) == {
            index: raw[index].tobytes() for index in wanted
        }


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_sample_planes_lead_back_to_any_words(data: st.DataObject) -> None:
    layout = data.draw(layouts(allocated=(8, 16)))
    raw = data.draw(frames_of(layout))
    found = to_planes(raw, layout, layout.rows)
    assert int(found.planes.max()) < 1 << found.bits
    parsed = parse_header(memoryview(found.header), layout, layout.rows, len(raw))
    assert parsed.length == len(found.header)
    for index, frame in enumerate(raw):
        assert [*to_raw(parsed, index, found.planes[index : index + 1], layout)] == [frame.tobytes()]


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_the_trial_never_chooses_more_than_raw_bytes(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    raw = data.draw(frames_of(layout))
    profile = data.draw(st.sampled_from(Profile))
    single = data.draw(st.booleans())
    trial = choose([raw], layout, profile, single=single)
    assert next(row.bytes for row in trial.table if row.codec is trial.codec) <= raw.size
    assert choose([raw], layout, profile, single=single).codec is trial.codec
