"""Bands of frames: checked one by one, served while others are still to come, decoded side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.codec.base import CodecId
from dicomfs.errors import CodecError, DamagedError, MismatchError, TierError
from dicomfs.format.pack_index import BandExtent
from dicomfs.frames import FrameReader, Unit, _read_with, codec_of
from dicomfs.model import ObjectKey
from dicomfs.packs import PackSource
from tests import samples
from tests.archives import flip, objects, write_sources

SLICES, ROWS, COLUMNS = 6, 400, 384
"""300 KiB a slice: two bands, where the codec is one of our own."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    with Archive.create(folder / "archive") as archive:
        archive.import_paths([write_sources(folder / "in", samples.ct_series(SLICES, ROWS, COLUMNS))])
        archive.pack("dense")
    return folder / "archive"


@pytest.fixture
def archive(packed: Path) -> Iterator[Archive]:
    with Archive.open(packed) as opened:
        yield opened


def pixel_pack(archive: Archive) -> tuple[ObjectKey, Path]:
    (path,) = objects(archive, "pixel")
    return ObjectKey(path.relative_to(archive.paths.local_tier).as_posix()), path


def test_large_frames_of_our_own_codecs_have_two_bands(archive: Archive) -> None:
    key, _ = pixel_pack(archive)
    (segment,) = FrameReader(PackSource(archive.tier), 1 << 24).stack(key, 0).segments
    assert codec_of(key, segment) in (CodecId.FAST, CodecId.DENSE)
    assert [(band.first_row, band.rows) for band in segment.bands] == [(0, 208), (208, 192)]


def test_frames_before_damage_are_served_and_none_after_it(archive: Archive) -> None:
    key, path = pixel_pack(archive)
    band = FrameReader(PackSource(archive.tier), 1 << 24).stack(key, 0).segments[0].bands[1]
    whole = FrameReader(PackSource(archive.tier), 1 << 24)
    right = [whole.fetch(Unit(key, 0, frame, 1)) for frame in range(SLICES)]
    damaged_at = band.offset + band.length * 6 // 10
    flip(path, damaged_at)
    try:
        frames = FrameReader(PackSource(archive.tier), 1 << 24)
        served = 0
        for frame in range(SLICES):
            try:
                assert frames.fetch(Unit(key, 0, frame, 1)) == right[frame]
                served += 1
            except (CodecError, MismatchError):
                break
        assert 2 <= served < SLICES
        for frame in range(served, SLICES):
            with pytest.raises((CodecError, MismatchError, DamagedError)):
                frames.fetch(Unit(key, 0, frame, 1))
        assert [frames.fetch(Unit(key, 0, frame, 0)) for frame in range(SLICES)]
    finally:
        flip(path, damaged_at)


def test_who_reads_one_band_finds_the_next_one_decoded(archive: Archive) -> None:
    key, _ = pixel_pack(archive)
    frames = FrameReader(PackSource(archive.tier), 1 << 24)
    frames._processors = 2
    frames.fetch(Unit(key, 0, 0, 0))
    for thread in threading.enumerate():
        if thread.name == "dicomfs-decode":
            thread.join()
    assert all(frames.ready(Unit(key, 0, frame, band)) for frame in range(SLICES) for band in (0, 1))


def test_a_cache_too_small_for_a_segment_is_not_flooded(archive: Archive) -> None:
    key, _ = pixel_pack(archive)
    frames = FrameReader(PackSource(archive.tier), ROWS * COLUMNS * 2)
    frames._processors = 1
    for frame in range(SLICES):
        assert frames.fetch(Unit(key, 0, frame, 0))
        for thread in threading.enumerate():
            if thread.name == "dicomfs-decode":
                thread.join()
        assert frames.ready(Unit(key, 0, frame, 0))
        assert frame == SLICES - 1 or not frames.ready(Unit(key, 0, frame + 1, 0))


def test_bands_that_follow_one_another_are_read_in_one_range(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = pixel_pack(archive)
    source = PackSource(archive.tier)
    bands = source.object(key).stacks[0].segments[0].bands
    ranges: list[int] = []
    monkeypatch.setattr(source.object(key), "_read", _noting(source.object(key)._read, ranges))
    right = [FrameReader(source, 1 << 24).fetch(Unit(key, 0, 0, band)) for band in (0, 1)]
    assert ranges == [bands[0].length + bands[1].length] * 2
    ranges.clear()
    frames = FrameReader(source, 1 << 24)
    assert [frames.fetch(Unit(key, 0, 0, band)) for band in (1, 0)] == right[::-1]
    assert ranges == [bands[0].length + bands[1].length]
    ranges.clear()
    monkeypatch.setattr("dicomfs.frames._READ_BYTES", 1)
    frames = FrameReader(source, 1 << 24)
    assert [frames.fetch(Unit(key, 0, 0, band)) for band in (1, 0)] == right[::-1]
    assert ranges == [bands[1].length, bands[0].length]


def test_a_band_that_cannot_be_read_takes_none_beside_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = pixel_pack(archive)
    source = PackSource(archive.tier)
    pack = source.object(key)
    bad, read = pack.stacks[0].segments[0].bands[1], pack._read

    tried: list[int] = []

    def broken(offset: int, length: int) -> bytes:
        tried.append(length)
        if offset + length > bad.offset:
            raise TierError("local", key, "Input/output error")
        return read(offset, length)

    right = FrameReader(source, 1 << 24).fetch(Unit(key, 0, 0, 0))
    monkeypatch.setattr(pack, "_read", broken)
    frames = FrameReader(source, 1 << 24)
    assert frames.fetch(Unit(key, 0, 0, 0)) == right
    assert len(tried) == 2
    with pytest.raises(TierError, match="Input/output error"):
        frames.fetch(Unit(key, 0, 0, 1))


def _noting(read: Callable[[int, int], bytes], ranges: list[int]) -> Callable[[int, int], bytes]:
    def noted(offset: int, length: int) -> bytes:
        ranges.append(length)
        return read(offset, length)

    return noted


@pytest.mark.parametrize(
    "extents, limit, wanted, together",
    [
        ([(10, 5), (15, 5), (20, 5)], 100, 1, [10, 15, 20]),
        ([(10, 5), (15, 5), (20, 5)], 10, 0, [10, 15]),
        ([(10, 5), (15, 5), (20, 5)], 10, 1, [10, 15]),
        ([(10, 5), (15, 5), (20, 5)], 10, 2, [20]),
        ([(10, 5), (15, 50), (65, 5)], 20, 0, [10]),
        ([(10, 5), (15, 50), (65, 5)], 20, 1, [15]),
        ([(10, 0), (10, 50), (60, 0)], 20, 1, [10]),
    ],
)
def test_which_bands_are_read_together(
    monkeypatch: pytest.MonkeyPatch,
    extents: list[tuple[int, int]],
    limit: int,
    wanted: int,
    together: list[int],
) -> None:
    monkeypatch.setattr("dicomfs.frames._READ_BYTES", limit)
    bands = [BandExtent(0, 1, offset, length) for offset, length in extents]
    assert [bands[number].offset for number in _read_with(bands, wanted)] == together


def test_the_end_of_a_pack_that_is_cut_off_takes_no_band_before_it(archive: Archive) -> None:
    key, path = pixel_pack(archive)
    source = PackSource(archive.tier)
    band = source.object(key).stacks[0].segments[0].bands[1]
    whole = path.read_bytes()
    path.chmod(0o600)
    try:
        path.write_bytes(whole[: band.offset + band.length - 1])
        frames = FrameReader(source, 1 << 24)
        assert frames.fetch(Unit(key, 0, 0, 0))
        with pytest.raises(DamagedError, match=f"{band.length - 1} bytes instead of {band.length}"):
            frames.fetch(Unit(key, 0, 0, 1))
        path.write_bytes(whole)
        assert frames.fetch(Unit(key, 0, 0, 1))
    finally:
        path.write_bytes(whole)
