"""The index of frames: sparse, and only ever a hint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dicomfs.format.keys import pack_key
from dicomfs.index.frames import FrameIndex, sampled
from dicomfs.model import PackKind

ONE, TWO = (pack_key(PackKind.PIXEL, digest * 32) for digest in ("ab", "cd"))


@pytest.fixture
def index(tmp_path: Path) -> FrameIndex:
    return FrameIndex(tmp_path / "frames")


def test_the_same_frames_are_sampled_whatever_stands_beside_them() -> None:
    source = random.Random(1)
    frames = [source.getrandbits(64) for _ in range(1000)]
    assert 30 < len(sampled(frames)) < 100
    for few in (frames[:1], frames[:2], frames[10:300]):
        assert sampled(few) & sampled(frames[10:300]) or few == frames[:1] or few == frames[:2]
        assert len(sampled(few)) >= min(2, len(few))
    assert sampled([]) == set()


def test_packs_are_found_by_their_frames_the_likeliest_first(index: FrameIndex) -> None:
    index.add(ONE, [1 << 40, 2 << 40, 3 << 40])
    index.add(TWO, [2 << 40, 3 << 40, 7 << 40])
    index.add(TWO, [99 << 40])
    assert index.packs() == {ONE, TWO}
    assert index.find([7 << 40, 2 << 40]) == [TWO, ONE]
    assert index.find([1 << 40]) == [ONE]
    assert index.find([99 << 40, 5 << 60]) == []
    index.close()


def test_an_index_that_cannot_be_opened_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"no index" * 1000)
    index = FrameIndex(folder)
    assert index.packs() == set()
    index.add(ONE, [1])
    assert index.find([1]) == [ONE]
    index.close()


def test_a_frame_takes_a_few_bytes(tmp_path: Path) -> None:
    source = random.Random(2)
    index = FrameIndex(tmp_path / "frames")
    frames = 0
    for number in range(60):
        stack = [source.getrandbits(64) for _ in range(2000)]
        index.add(pack_key(PackKind.PIXEL, f"{number:02x}" * 32), sampled(stack))
        frames += len(stack)
    index.close()
    assert (tmp_path / "frames" / "data.mdb").stat().st_size < 4 * frames
