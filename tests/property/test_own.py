"""Any samples of any shape come back from our own codecs; damage leads to an error or to other samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.codec.base import Planes, Settings
from dicomfs.codec.own import Dense, Fast
from dicomfs.errors import CodecError

SIDES = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 33, 63, 64, 65]), st.integers(1, 150))
SHORT, LONG = st.integers(1, 9), st.sampled_from([511, 513, 1025, 4099])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 6), SIDES, SIDES),
    st.tuples(st.integers(1, 2), SHORT, LONG),
    st.tuples(st.integers(1, 2), LONG, SHORT),
)
KINDS = ("constant", "noise", "extremes", "smooth", "repeated", "sparse", "steps")


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Planes, int]:
    """Draw samples and their depth."""
    bits = draw(st.integers(1, 16))
    shape = draw(SHAPES)
    rng, top = np.random.default_rng(draw(st.integers(0, 2**32))), (1 << bits) - 1
    kind = draw(st.sampled_from(KINDS))
    noise = rng.integers(0, top, shape, endpoint=True)
    if kind == "constant":
        values = np.full(shape, draw(st.integers(0, top)))
    elif kind == "extremes":
        values = np.where(noise & 1, 0, top)
    elif kind == "smooth":
        values = np.abs(np.cumsum(rng.integers(-3, 4, shape), axis=draw(st.integers(0, 2)))) & top
    elif kind == "repeated":
        values = noise[np.arange(shape[0]) % draw(st.integers(1, 3))]
    elif kind == "sparse":
        values = np.where(rng.random(shape) < 0.97, draw(st.integers(0, top)), noise)
    elif kind == "steps":
        values = noise // 7 * 7
    else:
        values = noise
    return values.astype(np.uint8 if bits <= 8 and draw(st.booleans()) else np.uint16), bits


HOW = st.builds(
    Settings,
    effort=st.integers(1, 9),
    level=st.integers(0, 1),
    references=st.lists(st.integers(0, 8), max_size=3).map(tuple),
)
BOTH = pytest.mark.parametrize("one", [Fast(), Dense()], ids=["fast", "dense"])


@BOTH
@given(stack=stacks(), how=HOW)
@settings(max_examples=200, deadline=None)
def test_samples_come_back(one: Fast | Dense, stack: tuple[Planes, int], how: Settings) -> None:
    planes, bits = stack
    payload = one.encode(planes, bits, how)
    found = dict(one.decode(memoryview(payload), planes.shape, planes.dtype, bits, range(len(planes))))
    assert all(np.array_equal(found[index], frame) for index, frame in enumerate(planes))
    assert one.encode(planes, bits, how) == payload


@BOTH
@given(stack=stacks(), how=HOW, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_stream_is_an_error_or_other_samples(
    one: Fast | Dense, stack: tuple[Planes, int], how: Settings, data: st.DataObject
) -> None:
    planes, bits = stack
    damaged = bytearray(one.encode(planes, bits, how))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = damaged[: data.draw(st.integers(0, len(damaged)))]
    for payload in (damaged, cut):
        try:
            found = dict(
                one.decode(memoryview(payload), planes.shape, planes.dtype, bits, range(len(planes)))
            )
        except CodecError:
            continue
        assert [frame.shape for frame in found.values()] == [planes.shape[1:]] * len(planes)
