"""Which codec a stack gets: tried on a few of its own frames, priced by size and cost of reading.

Owns the candidates and the pricing rule; encodes nothing for keeps.

The rule: price = bytes x (1 + margin) ** class, where the class grows with the time it takes to read one
frame: raw 0, Zstandard 1, JPEG-LS 2, JPEG XL 3, FFV1 and HEVC 4 (one frame costs the whole segment).  So a
codec that reads slower has to be smaller by the margin: 3 % in the fast profile, 1 % in the dense one,
nothing in the archive profile.  Times are measured for the report only; they have no part in the decision.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import EFFORT_ARCHIVE, EFFORT_DENSE, EFFORT_FAST, CodecId, Profile, Settings
from dicomfs.codec.segment import band_rows, decode_band, encode_band, segment_frames
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

__all__ = ["Profile", "Trial", "TrialRow", "band_rows", "candidates", "choose", "segment_frames"]

Frames = npt.NDArray[np.uint8]

_TRIAL_BYTES = 2 << 20
_TRIAL_EFFORT = EFFORT_DENSE
"""Above this effort the order of the codecs no longer changes, only the time."""


_EFFORT = {Profile.FAST: EFFORT_FAST, Profile.DENSE: EFFORT_DENSE, Profile.ARCHIVE: EFFORT_ARCHIVE}
_MARGIN = {Profile.FAST: 0.03, Profile.DENSE: 0.01, Profile.ARCHIVE: 0.0}
_READING_CLASS = {
    CodecId.RAW: 0,
    CodecId.ZSTD: 1,
    CodecId.JPEGLS: 2,
    CodecId.JPEGXL: 3,
    CodecId.FFV1: 4,
    CodecId.HEVC: 4,
    CodecId.FAST: 1,
    CodecId.DENSE: 4,
}


@dataclass(frozen=True, slots=True)
class TrialRow:
    """What one codec made of the sampled frames."""

    codec: CodecId
    bytes: int
    encode_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Trial:
    """The codec chosen for a stack, with the evidence."""

    codec: CodecId
    settings: Settings
    table: tuple[TrialRow, ...]
    """One row per codec that took the samples and gave them back, raw first."""
    reason: str
    price: float
    """Price of the chosen codec per raw byte: comparable between orders and cuts of the same stack."""

    @property
    def effort(self) -> int:
        """What is noted with each segment."""
        return self.settings.effort


def candidates(layout: PixelLayout, single: bool) -> tuple[CodecId, ...]:
    """Return the codecs worth trying; ``single`` says that the stack's frames have no neighbours."""
    if layout.is_float or layout.bits_allocated not in (8, 16):
        return (CodecId.RAW, CodecId.ZSTD)
    still = (CodecId.RAW, CodecId.ZSTD, CodecId.JPEGLS, CodecId.JPEGXL)
    if single:
        return still
    return (*still, CodecId.FFV1, CodecId.HEVC) if layout.samples == 1 else (*still, CodecId.FFV1)


def choose(samples: Sequence[Frames], layout: PixelLayout, profile: Profile, *, single: bool) -> Trial:
    """Choose the codec of a stack from runs of neighbouring frames, each (frames, frame_bytes).

    At most about 2 MiB are encoded per candidate.  A codec that refuses the samples, is missing, or does
    not give them back drops out; raw bytes always remain.  The same input gives the same choice.
    """
    effort = _EFFORT[profile]
    bands = [_middle_band(run, layout, _TRIAL_BYTES // max(1, len(samples))) for run in samples if run.size]
    table = []
    for codec in candidates(layout, single):
        row = _try(bands, layout, codec, min(effort, _TRIAL_EFFORT))
        if row is not None:
            table.append(row)
    ranked = sorted(table, key=lambda row: (_price(row, profile), _READING_CLASS[row.codec], row.codec))
    price = _price(ranked[0], profile) / max(1, table[0].bytes)
    return Trial(ranked[0].codec, Settings(effort), tuple(table), _reason(table, ranked), price)


def _price(row: TrialRow, profile: Profile) -> float:
    return row.bytes * (1 + _MARGIN[profile]) ** _READING_CLASS[row.codec]


def _middle_band(run: Frames, layout: PixelLayout, budget: int) -> tuple[Frames, int]:
    """Cut the middle band of a run, and as many of its middle frames as the budget allows."""
    rows = band_rows(layout, len(run))
    first_row = (layout.rows - rows) // 2
    size = rows * layout.row_bytes
    frames = min(len(run), max(1, budget // max(1, size)))
    first = (len(run) - frames) // 2
    start = first_row * layout.row_bytes
    return np.ascontiguousarray(run[first : first + frames, start : start + size]), rows


def _try(
    bands: Sequence[tuple[Frames, int]], layout: PixelLayout, codec: CodecId, effort: int
) -> TrialRow | None:
    total, encode_s, decode_s = 0, 0.0, 0.0
    try:
        for raw, rows in bands:
            started = time.perf_counter()
            payload = encode_band(raw, layout, rows, codec, Settings(effort))
            encoded = time.perf_counter()
            found = decode_band(payload, layout, rows, len(raw), codec)
            decode_s += time.perf_counter() - encoded
            encode_s += encoded - started
            total += len(payload)
            if any(found[index] != frame.tobytes() for index, frame in enumerate(raw)):
                return None
    except CodecError:
        return None
    return TrialRow(codec, total, encode_s, decode_s)


def _reason(table: Sequence[TrialRow], ranked: Sequence[TrialRow]) -> str:
    chosen, smallest = ranked[0], min(table, key=lambda row: row.bytes)
    ratio = table[0].bytes / max(1, chosen.bytes)
    text = f"{chosen.codec.name.lower()} {ratio:.2f}:1"
    if smallest.bytes < chosen.bytes:
        gain = 100 * (1 - smallest.bytes / chosen.bytes)
        return f"{text}; {smallest.codec.name.lower()} is {gain:.1f} % smaller but reads slower"
    if len(ranked) > 1:
        return f"{text}; next {ranked[1].codec.name.lower()} {table[0].bytes / max(1, ranked[1].bytes):.2f}:1"
    return text
