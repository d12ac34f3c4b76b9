"""The dense stream is the same whatever a thread's floating-point mode is."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dicomfs.codec.base import EFFORT_DENSE, CodecId, Settings
from dicomfs.codec.registry import codec

# fenv.h; the numbers are those of glibc for each architecture.
_UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}


@contextmanager
def _rounding_upward() -> Iterator[None]:
    libm = ctypes.CDLL("libm.so.6")
    assert libm.fesetround(_UPWARD[platform.machine()]) == 0
    try:
        assert float(np.float32(1) + np.float32(2**-30)) > 1, "the mode of rounding was not changed"
        yield
    finally:
        libm.fesetround(0)


@pytest.mark.parametrize("level", [0, 1])
def test_a_thread_that_rounds_otherwise_writes_and_reads_the_same_stream(level: int) -> None:
    """What a library did to the thread must not reach the samples."""
    rng = np.random.default_rng(5)
    planes = (rng.normal(0, 40, (3, 48, 64)).cumsum(axis=2) + 2000).clip(0, 4095).astype(np.uint16)
    dense, settings = codec(CodecId.DENSE), Settings(EFFORT_DENSE, level=level)
    expected = dense.encode(planes, 12, settings)
    with _rounding_upward():
        stream = dense.encode(planes, 12, settings)
        back = dict(dense.decode(memoryview(expected), planes.shape, planes.dtype, 12, range(3)))
    assert stream == expected
    assert all(np.array_equal(back[index], planes[index]) for index in range(3))
