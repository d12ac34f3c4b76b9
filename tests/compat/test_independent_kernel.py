"""Streams of our own are read by decoders that know `docs/codec.md` only, to the last sample."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec.base import CodecId, Settings
from dicomfs.codec.registry import codec
from dicomfs.errors import CodecError
from tests import independent_dense, independent_fast
from tests.compat.kernel_stacks import REAL, StackOfFrames, cut, made, stack
from tests.conftest import CHECKOUT, find_real_data, real_files
from tests.independent_fast_side import SideReader, read_header
from tests.independent_kernel import Damaged, Stack

Decoder = Callable[[Stack, bytes], npt.NDArray[np.int64]]
CODECS: dict[str, tuple[CodecId, Decoder]] = {
    "fast": (CodecId.FAST, independent_fast.decode),
    "dense": (CodecId.DENSE, independent_dense.decode),
}
SETTINGS = [("fast", 3, 0), ("fast", 7, 0), ("dense", 5, 0), ("dense", 5, 1)]
MADE = dict(made())
DAMAGED = ("scene 8", "references (1, 2, 3)", "two spikes", "parity of a wide range", "constant 12")
FLIPS = 25


def encode(kind: str, what: StackOfFrames, effort: int, level: int) -> bytes:
    """Code with the kernel."""
    return codec(CODECS[kind][0]).encode(what.samples, what.bits, Settings(effort, level, what.references))


def shape_of(what: StackOfFrames) -> Stack:
    """What is known from outside."""
    frames, rows, columns = what.samples.shape
    return Stack(frames, rows, columns, what.bits)


def by_text(kind: str, what: StackOfFrames, stream: bytes) -> npt.NDArray[Any] | None:
    """What the text makes of a stream; None if it is damaged."""
    try:
        return CODECS[kind][1](shape_of(what), stream)
    except Damaged:
        return None


def by_kernel(kind: str, what: StackOfFrames, stream: bytes) -> npt.NDArray[Any] | None:
    """What the kernel makes of a stream; None if it is damaged."""
    size, dtype = what.samples.shape, what.samples.dtype
    try:
        found = codec(CODECS[kind][0]).decode(memoryview(stream), size, dtype, what.bits, range(size[0]))
        return np.stack([frame for _, frame in found])
    except CodecError:
        return None


@pytest.mark.parametrize("kind, effort, level", SETTINGS)
@pytest.mark.parametrize("name", MADE)
def test_a_stack_comes_back_from_the_text_alone(name: str, kind: str, effort: int, level: int) -> None:
    found = by_text(kind, MADE[name], encode(kind, MADE[name], effort, level))
    assert found is not None
    assert np.array_equal(found, MADE[name].samples)


@pytest.mark.parametrize("kind, effort, level", SETTINGS)
@pytest.mark.parametrize("folder", [name for name in REAL if real_files(f"series/{name}")])
def test_real_images_come_back_from_the_text_alone(folder: str, kind: str, effort: int, level: int) -> None:
    root = find_real_data()
    assert root is not None
    what = cut(root / "series" / folder, REAL[folder])
    if kind == "dense":
        what = stack(what.samples[:3, :20, :36], what.bits, what.references)
    found = by_text(kind, what, encode(kind, what, effort, level))
    assert found is not None
    assert np.array_equal(found, what.samples)


def test_the_stacks_make_the_fast_stream_use_all_that_it_has() -> None:
    used: set[object] = set()
    for what in MADE.values():
        stream = encode("fast", what, 7, 0)
        used.add(("mode", stream[1]))
        if stream[1] == 0:
            continue
        _, at = independent_fast.leb128(stream, 2)
        _, at = independent_fast.leb128(stream, at)
        header = read_header(SideReader(stream[at:]), shape_of(what))
        used |= {("folded", header.occurring is not None), ("spiked", header.spike is not None)}
        used |= {("stage", stage) for stage in header.taps}
    assert used >= {("mode", 0), ("mode", 1), *(("stage", stage) for stage in range(4))}
    assert used >= {(what, state) for what in ("folded", "spiked") for state in (False, True)}


def test_the_stacks_make_the_dense_stream_use_all_that_it_has() -> None:
    flags = [encode("dense", what, 5, level)[1] for what in MADE.values() for level in (0, 1)]
    for flag in (1, 2, 4, 8, 64):
        assert {one & flag for one in flags} == {0, flag}
    assert {one >> 4 & 3 for one in flags} == {0, 1, 2}


@pytest.mark.parametrize("kind, effort, level", [SETTINGS[0], *SETTINGS[2:]])
@pytest.mark.parametrize("name", DAMAGED)
def test_text_and_kernel_refuse_the_same_damage(name: str, kind: str, effort: int, level: int) -> None:
    what = MADE[name]
    what = stack(what.samples[:3, :16, :20], what.bits, what.references)
    whole, chance = encode(kind, what, effort, level), random.Random(f"{name} {kind} {level}")
    for flip in range(FLIPS):
        damaged = bytearray(whole)
        place = chance.randrange(min(len(whole), 60 if flip % 2 else len(whole)))
        if flip % 5:
            damaged[place] ^= chance.randrange(1, 256)
        elif flip % 2:
            del damaged[place:]
        else:
            damaged += chance.randbytes(1 + place % 5)
        found, known = by_text(kind, what, bytes(damaged)), by_kernel(kind, what, bytes(damaged))
        assert (found is None) == (known is None)
        if found is not None and known is not None:
            assert np.array_equal(found, known)


def test_the_independent_decoders_import_nothing_of_the_product() -> None:
    script = (
        "import sys, tests.independent_fast, tests.independent_dense\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'dicomfs'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
