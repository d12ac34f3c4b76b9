"""The choice of a codec."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec import registry, trial
from dicomfs.codec.base import CodecId
from dicomfs.codec.trial import Profile, TrialRow, candidates, choose
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

    def attempt(_bands: object, _layout: object, codec: CodecId, _effort: int) -> TrialRow | None:
        return TrialRow(codec, sizes[codec], 0.0, 0.0) if codec in sizes else None

    monkeypatch.setattr(trial, "_try", attempt)


@pytest.mark.parametrize(
    "profile, smaller, chosen",
    [
        (Profile.FAST, 980, CodecId.JPEGLS),
        (Profile.FAST, 960, CodecId.JPEGXL),
        (Profile.DENSE, 995, CodecId.JPEGLS),
        (Profile.DENSE, 980, CodecId.JPEGXL),
        (Profile.ARCHIVE, 999, CodecId.JPEGXL),
        (Profile.ARCHIVE, 1000, CodecId.JPEGLS),
    ],
)
def test_a_codec_that_reads_slower_has_to_win_by_the_margin(
    monkeypatch: pytest.MonkeyPatch, profile: Profile, smaller: int, chosen: CodecId
) -> None:
    sized(monkeypatch, {CodecId.RAW: 3000, CodecId.JPEGLS: 1000, CodecId.JPEGXL: smaller})
    assert choose([frames(2, 1)], LAYOUT, profile, single=False).codec is chosen


def test_frames_that_repeat_go_to_a_codec_that_looks_at_neighbours() -> None:
    found = choose([frames(60, 3)], LAYOUT, Profile.FAST, single=False)
    assert found.codec is CodecId.HEVC
    assert found.reason.startswith("hevc ")
    assert 0 < found.price < 1


def test_noise_stays_raw() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (4, LAYOUT.frame_bytes), dtype=np.uint8)
    assert choose([noise], LAYOUT, Profile.DENSE, single=False).codec is CodecId.RAW


def test_floats_are_tried_with_zstandard_only() -> None:
    layout = PixelLayout(64, 64, 1, 32, 32, 31, signed=False, is_float=True)
    assert candidates(layout, single=True) == (CodecId.RAW, CodecId.ZSTD)
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
