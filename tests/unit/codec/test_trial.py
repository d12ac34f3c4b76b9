"""The choice of a codec."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec import registry, trial
from dicomfs.codec.base import CodecId
from dicomfs.codec.candidates import Candidate, candidates
from dicomfs.codec.trial import Profile, TrialRow, choose, repetition, sample_runs
from dicomfs.errors import CodecUnavailable
from dicomfs.model import PixelLayout

LAYOUT = PixelLayout(64, 64, 1, 16, 12, 11, signed=False)


def frames(count: int, noise: int) -> npt.NDArray[np.uint8]:
    """Return frames that differ from each other by noise only."""
    rng = np.random.default_rng(1)
    scene = np.cumsum(rng.integers(-40, 41, (1, 64, 64)), axis=2) + 2048
    words = np.clip(scene + rng.integers(0, noise + 1, (count, 64, 64)), 0, 4095)
    raw: npt.NDArray[np.uint8] = words.astype("<u2").view(np.uint8)
    return raw.reshape(count, -1)


def sized(monkeypatch: pytest.MonkeyPatch, sizes: dict[CodecId, int]) -> None:
    """Let the candidates come out at these sizes."""

    def attempt(_pieces: object, _layout: object, one: Candidate, *, check: bool = True) -> TrialRow | None:
        if one.codec not in sizes:
            return None
        return TrialRow(one.codec, one.settings, sizes[CodecId.RAW], sizes[one.codec], 0.0, 0.0)

    monkeypatch.setattr(trial, "_attempt", attempt)


@pytest.mark.parametrize(
    "profile, smaller, chosen",
    [
        (Profile.FAST, 9500, CodecId.JPEGLS),
        (Profile.FAST, 9000, CodecId.JPEGXL),
        (Profile.DENSE, 9990, CodecId.JPEGLS),
        (Profile.DENSE, 9970, CodecId.JPEGXL),
        (Profile.ARCHIVE, 9970, CodecId.JPEGXL),
        (Profile.ARCHIVE, 9990, CodecId.JPEGLS),
    ],
)
def test_a_codec_that_reads_slower_has_to_win_by_the_margin(
    monkeypatch: pytest.MonkeyPatch, profile: Profile, smaller: int, chosen: CodecId
) -> None:
    sized(monkeypatch, {CodecId.RAW: 30000, CodecId.JPEGLS: 10000, CodecId.JPEGXL: smaller})
    assert choose([frames(2, 1)], LAYOUT, profile, single=False).codec is chosen


@pytest.mark.parametrize(
    "profile, fast, chosen",
    [
        (Profile.FAST, 9999, CodecId.FAST),
        (Profile.FAST, 10001, CodecId.JPEGLS),
        (Profile.DENSE, 9801, CodecId.JPEGXL),
        (Profile.DENSE, 9799, CodecId.FAST),
    ],
)
def test_no_codec_is_chosen_that_a_codec_of_single_images_undercuts(
    monkeypatch: pytest.MonkeyPatch, profile: Profile, fast: int, chosen: CodecId
) -> None:
    sizes = {CodecId.RAW: 30000, CodecId.JPEGLS: 10000, CodecId.JPEGXL: 9800, CodecId.FAST: fast}
    sized(monkeypatch, sizes)
    assert choose([frames(2, 1)], LAYOUT, profile, single=False).codec is chosen


def test_who_falls_behind_in_a_hurry_codes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    scene = np.cumsum(rng.integers(-9, 10, (60, 64, 64)), axis=2) + 2048
    raw = scene.astype("<u2").view(np.uint8).reshape(60, -1)
    found = choose([raw], LAYOUT, Profile.DENSE, single=False)
    behind = {row.codec for row in found.table if not row.final}
    assert CodecId.ZSTD in behind
    assert found.codec not in behind
    assert all(row.raw_bytes <= 1 << 18 for row in found.table if not row.final)


def test_frames_that_repeat_go_to_a_codec_that_looks_at_neighbours() -> None:
    found = choose([frames(60, 3)], LAYOUT, Profile.FAST, single=False)
    assert found.codec is CodecId.FAST
    assert found.reason.startswith("fast ")
    assert 0 < found.price < 1


def volumes(positions: int, times: int) -> npt.NDArray[np.uint8]:
    """Return positions that have nothing in common, each shown again and again with a little noise."""
    rng = np.random.default_rng(6)
    places = np.cumsum(rng.integers(-60, 61, (positions, 64, 64)), axis=2) + 2048
    shown = np.tile(places, (times, 1, 1)) + rng.integers(0, 3, (positions * times, 64, 64))
    raw: npt.NDArray[np.uint8] = np.clip(shown, 0, 4095).astype("<u2").view(np.uint8)
    return raw.reshape(positions * times, -1)


def test_repeated_positions_are_predicted_from_the_repetition_before() -> None:
    found = choose([volumes(9, 3)], LAYOUT, Profile.DENSE, single=False, frames=9 * 200, period=9)
    assert 9 in found.settings.references
    assert found.segment_frames >= 9 * 8
    near = choose([volumes(9, 3)], LAYOUT, Profile.DENSE, single=False, frames=9 * 200)
    assert 9 not in near.settings.references
    assert found.price < near.price


def test_files_read_in_another_order_cost_a_little() -> None:
    named, moved = (
        choose([frames(60, 3)], LAYOUT, Profile.FAST, single=False, reordered=there)
        for there in (False, True)
    )
    assert moved.price > named.price
    assert (named.reordered, moved.reordered) == (False, True)


@pytest.mark.parametrize(
    "places, period",
    [
        ([0.0, 1.0, 2.0] * 4, 3),
        ([0.0, 1.0, 2.0], 0),
        ([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], 0),
        ([0.0, 1.0, None, 0.0, 1.0, 2.0], 0),
        ([float(n) for n in range(20)] * 2 + [3.0], 20),
        ([0.0, 1.0, 2.0, 0.0, 5.0, 6.0, 7.0, 8.0], 0),
        ([], 0),
    ],
)
def test_the_repetition_of_positions_is_found(places: list[float | None], period: int) -> None:
    assert repetition(places) == period


@pytest.mark.parametrize("count", [1, 2, 9, 40, 1000])
@pytest.mark.parametrize("size", [16, 64, 512, 4000])
@pytest.mark.parametrize("period", [0, 7])
def test_what_a_trial_wants_to_see_lies_in_the_stack_and_is_bounded(
    count: int, size: int, period: int
) -> None:
    layout = PixelLayout(size, size, 1, 16, 12, 11, signed=False)
    runs = sample_runs(count, layout, period)
    assert runs
    assert all(0 <= run.start < run.stop <= count for run in runs)
    assert all(run.stop <= following.start for run, following in itertools.pairwise(runs))
    assert sum(map(len, runs)) * layout.frame_bytes <= max((16 << 20), len(runs) * layout.frame_bytes)


def test_noise_stays_raw() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (4, LAYOUT.frame_bytes), dtype=np.uint8)
    assert choose([noise], LAYOUT, Profile.DENSE, single=False).codec is CodecId.RAW


def test_floats_are_tried_with_zstandard_and_our_own_codecs() -> None:
    layout = PixelLayout(64, 64, 1, 32, 32, 31, signed=False, is_float=True)
    tried = candidates(layout, Profile.DENSE, single=True)
    assert [one.codec for one in tried] == [CodecId.RAW, CodecId.ZSTD, CodecId.FAST, CodecId.DENSE]
    samples = np.zeros((1, layout.frame_bytes), np.uint8)
    assert choose([samples], layout, Profile.FAST, single=True).codec is CodecId.ZSTD


@pytest.mark.parametrize("samples", [[], [np.zeros((0, 8192), np.uint8)]], ids=["none", "empty"])
def test_without_samples_the_frames_stay_raw(samples: list[npt.NDArray[np.uint8]]) -> None:
    assert choose(samples, LAYOUT, Profile.FAST, single=False).codec is CodecId.RAW


def test_a_missing_codec_drops_out_with_its_reason_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.codec(CodecId.HEVC)), "unavailable", lambda _self: "not built in")
    with pytest.raises(CodecUnavailable, match="not built in"):
        registry.codec(CodecId.HEVC)
    found = choose([frames(60, 3)], LAYOUT, Profile.FAST, single=False)
    assert CodecId.HEVC not in {row.codec for row in found.table}


def test_a_codec_that_does_not_give_the_frames_back_drops_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(payload: bytes, layout: PixelLayout, rows: int, count: int, codec: CodecId) -> dict[int, bytes]:
        if codec is CodecId.RAW:
            return {
                index: payload[index * layout.frame_bytes :][: layout.frame_bytes] for index in range(count)
            }
        return dict.fromkeys(range(count), bytes(layout.frame_bytes))

    monkeypatch.setattr(trial, "decode_band", wrong)
    assert [row.codec for row in choose([frames(3, 3)], LAYOUT, Profile.FAST, single=False).table] == [
        CodecId.RAW
    ]


def test_every_codec_is_found_under_its_id() -> None:
    assert {registry.codec(known).id for known in CodecId} == set(CodecId)
