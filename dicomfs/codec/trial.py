"""Which codec a stack gets: tried on a few of its own frames, priced by size and cost of reading.

Owns what is sampled, the order of the attempts and the choice; the candidates and the price of their speed
are in ``candidates``.  Encodes nothing for keeps.

A trial has to cost little beside the packing.  So every candidate first codes a small piece in a hurry, and
only those that come near the best go on to a larger one; JPEG XL and video codecs, which code slowest, go on
only where they come out almost level.  No codec is chosen that makes the sample larger than JPEG-LS (and,
but in the fast profile, JPEG XL) does.  What comes back is compared in the first round, and again, for
every byte, before a pack is sealed.  Times are measured for the report alone.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import CodecId, Profile, Settings, at_level
from dicomfs.codec.candidates import OWN, STILL, VIDEO, Candidate, candidates, reference_sets
from dicomfs.codec.segment import band_rows, decode_band, encode_band, segment_frames
from dicomfs.codec.wide import is_wide
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

__all__ = ["Profile", "Trial", "TrialRow", "band_rows", "choose", "repetition", "sample_runs"]

Frames = npt.NDArray[np.uint8]

_MIB = 1 << 20
_RUNS = 2
_ONE_RUN_BYTES = 24 * _MIB
"""Stacks up to this size show one run: codecs that learn need a long piece more than several."""
_RUN_BYTES = 4 * _MIB
_TRIAL_BYTES = 3 * _MIB
"""Raw bytes that a candidate of the second round codes at most."""
_SHARE = 8
"""One byte in so many of the stack is enough, down to the least."""
_LEAST_BYTES = _MIB // 4
_QUICK_BYTES = _MIB // 4
_REFERENCES_BYTES = 3 * _MIB // 4
_NEIGHBOURS = 8
"""Frames of a sampled piece: what predicts from neighbours needs some."""
_REPETITIONS = 3
_LEAST_ROWS = 16
_NEAR, _ALMOST = 1.10, 1.03
_SLACK_BYTES = 1024
"""A piece that almost vanishes says little about who is better."""
_REFERENCES_GAIN = 0.995
_REORDERED = 1.02
"""What reading files in another order than they lie in costs where the cache holds all frames."""
_WORN_IN = 1.03
_LEARNING, _MOST_LEARNING = 0.012 * _MIB, 0.03
"""What the dense codec, which begins to learn with every stream, loses on short ones: a share of one over
the length in bytes.  Measured on CT and MR; samples are shorter than the bands of a stack."""
_LONGEST_BYTES = {Profile.FAST: 64 * _MIB, Profile.DENSE: 16 * _MIB, Profile.ARCHIVE: 16 * _MIB}
_HURRIED = {CodecId.JPEGXL: 3, CodecId.JPEGLS: 3, CodecId.ZSTD: 3, CodecId.FFV1: 3, CodecId.HEVC: 3}


@dataclass(frozen=True, slots=True)
class TrialRow:
    """What one candidate made of the sampled bytes."""

    codec: CodecId
    settings: Settings
    raw_bytes: int
    bytes: int
    encode_s: float
    decode_s: float
    """0 where only the size was looked at."""
    final: bool = True
    """False: it fell behind in the first round."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The codec chosen for a stack, with the evidence."""

    codec: CodecId
    settings: Settings
    segment_frames: int
    table: tuple[TrialRow, ...]
    """One row per candidate that took the samples and gave them back, raw first."""
    reason: str
    price: float
    """Price of the choice per raw byte: comparable between orders of the same stack."""
    reordered: bool = False

    @property
    def chosen(self) -> TrialRow:
        """The row of the choice."""
        return next(row for row in self.table if (row.codec, row.settings) == (self.codec, self.settings))


def repetition(places: Sequence[float | None]) -> int:
    """Return after how many frames positions repeat, 0 where they do not or are not known.

    A few frames may be missing or extra: nine of ten have to agree.
    """
    if len(places) < 4 or any(place is None for place in places):
        return 0
    period = next((index for index in range(1, len(places)) if places[index] == places[0]), 0)
    if period < 2:
        return 0
    agreeing = sum(here == there for here, there in zip(places, places[period:], strict=False))
    return period if agreeing >= 0.9 * (len(places) - period) else 0


def sample_runs(frames: int, layout: PixelLayout, period: int = 0) -> list[range]:
    """Return which frames of a stack a trial wants to see: runs of neighbours, spread over the stack."""
    size = max(1, layout.frame_bytes)
    if period:
        length = max(1, min(frames, _REPETITIONS * period, 4 * _RUN_BYTES // size))
        start = (frames - length) // 2
        return [range(start, start + length)]
    length = max(1, min(frames, _NEIGHBOURS, _RUN_BYTES // size))
    if size * length < _LEAST_BYTES:
        length = min(frames, -(-_LEAST_BYTES // size))
    runs = 1 if frames * size <= _ONE_RUN_BYTES or frames < length * _RUNS else _RUNS
    # Not the ends: they show less of the body than the rest.
    step = max(length, (frames - length) // (runs + 1))
    first = (frames - length - (runs - 1) * step) // 2
    return [range(first + at * step, first + at * step + length) for at in range(runs)]


def choose(
    samples: Sequence[Frames],
    layout: PixelLayout,
    profile: Profile,
    *,
    single: bool,
    frames: int = 0,
    period: int = 0,
    reordered: bool = False,
) -> Trial:
    """Choose the codec of a stack from runs of neighbouring frames, each (frames, frame_bytes).

    ``frames`` is the length of the stack (0: as many as there are samples), ``period`` what `repetition` says
    of it.  A candidate that refuses the samples, is missing, or does not give them back drops out; raw bytes
    always remain.  The same input gives the same choice.
    """
    runs = [run for run in samples if run.size]
    count = max(frames, sum(len(run) for run in runs))
    budget = min(_TRIAL_BYTES, max(_LEAST_BYTES, count * layout.frame_bytes // _SHARE))
    pieces = [_piece(run, layout, budget // len(runs), number, period) for number, run in enumerate(runs)]
    return _Choice(pieces, layout, profile, period, count).make(single=single, reordered=reordered)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of some frames: coded as if they were a band."""

    raw: Frames
    rows: int


def _piece(run: Frames, layout: PixelLayout, budget: int, number: int, period: int) -> _Piece:
    """Cut rows out of a run: of the first run in the middle of the image, of the next above it."""
    frames = min(len(run), max(_NEIGHBOURS, _REPETITIONS * period))
    rows = min(layout.rows, max(_LEAST_ROWS, budget // (frames * layout.row_bytes) // 8 * 8))
    frames = min(frames, max(1, budget // (rows * layout.row_bytes), min(frames, 2)))
    first_row = max(0, min(layout.rows - rows, layout.rows * (5 - 2 * (number % 2)) // 10 - rows // 2))
    start, size = first_row * layout.row_bytes, rows * layout.row_bytes
    return _Piece(np.ascontiguousarray(run[:frames, start : start + size]), rows)


def _part(pieces: Sequence[_Piece], layout: PixelLayout, size: int, frames: int) -> list[_Piece]:
    """About ``size`` bytes of the first piece: its middle rows, of ``frames`` frames where it has them."""
    for piece in pieces[:1]:
        count = min(len(piece.raw), max(frames, size // (piece.rows * layout.row_bytes)))
        rows = min(piece.rows, max(_LEAST_ROWS, size // (count * layout.row_bytes) // 8 * 8))
        start = (piece.rows - rows) // 2 * layout.row_bytes
        cut = piece.raw[:count, start : start + rows * layout.row_bytes]
        return [_Piece(np.ascontiguousarray(cut), rows)]
    return []


class _Choice:
    """One trial on its way."""

    def __init__(
        self, pieces: list[_Piece], layout: PixelLayout, profile: Profile, period: int, frames: int
    ) -> None:
        self._pieces, self._layout, self._profile = pieces, layout, profile
        self._period, self._frames = period, frames
        self._segment_frames = segment_frames(layout, profile)

    def make(self, *, single: bool, reordered: bool) -> Trial:
        offered = candidates(self._layout, self._profile, single=single)
        if self._pieces and not single and any(one.codec in OWN for one in offered):
            offered = self._with_references(offered)
        near, behind = self._first_round(offered)
        if len(near) <= 2 and not self._period:
            # Raw bytes and one other: more of the stack would not change the choice.
            table = [dataclasses.replace(row, settings=one.settings) for one, row in near.items()]
            compared = [*table, *behind]
        else:
            rows = (_attempt(self._pieces, self._layout, one, check=False) for one in near)
            table = compared = [row for row in rows if row is not None]
        chosen = self._cheapest(table)
        price = self._price(chosen) * (_REORDERED if reordered else 1)
        return Trial(
            chosen.codec,
            chosen.settings,
            self._segment_frames,
            (*table, *behind),
            _reason(compared, chosen),
            price,
            reordered,
        )

    def _with_references(self, offered: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Give our own codecs the reference distances that do best, and segments long enough for them."""
        fast = Candidate(CodecId.FAST, Settings(effort=1))
        rows = {}
        shown = _part(self._pieces, self._layout, _REFERENCES_BYTES, _REPETITIONS * self._period)
        for distances in reference_sets(self._period):
            row = _attempt(shown, self._layout, _referring(fast, distances), check=False)
            if row is not None:
                rows[distances] = row
        if not rows:
            return tuple(offered)
        usual, *_ = rows
        best = min(rows, key=lambda distances: rows[distances].bytes)
        if rows[best].bytes > rows[usual].bytes * _REFERENCES_GAIN:
            best = usual
        if max(best) >= self._period > 0 and not self._lengthen(shown[0], rows[best], rows[usual]):
            best = usual
        return tuple(_referring(one, best) if one.codec in OWN else one for one in offered)

    def _lengthen(self, piece: _Piece, timely: TrialRow, usual: TrialRow) -> bool:
        """Make segments so long that the first repetition, which has no earlier one, hardly counts.

        False when they would be too long for any gain.
        """
        if len(piece.raw) < 2 * self._period:
            return False
        start = _attempt(
            [_Piece(piece.raw[: self._period], piece.rows)], self._layout, _candidate(timely), check=False
        )
        if start is None:
            return False
        first = start.bytes / self._period
        later = (timely.bytes - start.bytes) / (len(piece.raw) - self._period)
        longest = _LONGEST_BYTES[self._profile] // max(1, self._period * self._layout.frame_bytes)
        wanted = math.ceil((first / max(later, 1e-9) - 1) / (_WORN_IN - 1))
        repetitions = max(1, min(longest, wanted))
        if (first + (repetitions - 1) * later) / repetitions > usual.bytes / len(piece.raw):
            return False
        self._segment_frames = max(self._segment_frames, repetitions * self._period)
        return True

    def _first_round(self, offered: Sequence[Candidate]) -> tuple[dict[Candidate, TrialRow], list[TrialRow]]:
        """Return who goes on with what they made, raw among them, and the rows of those who do not."""
        quick = _part(self._pieces, self._layout, _QUICK_BYTES, _NEIGHBOURS // 2)
        rows = {one: row for one in offered if (row := _attempt(quick, self._layout, _hurried(one)))}
        least = min(one.price(row.bytes, self._profile) for one, row in rows.items())

        def goes_on(one: Candidate, row: TrialRow) -> bool:
            if one.codec is CodecId.RAW or is_wide(self._layout):
                # Of wide words Zstandard shows what it can do in earnest only, and there are few others.
                return True
            reach = _ALMOST if one.codec in VIDEO or one.codec is CodecId.JPEGXL else _NEAR
            return one.price(row.bytes, self._profile) <= least * reach + _SLACK_BYTES

        behind = [dataclasses.replace(row, final=False) for one, row in rows.items() if not goes_on(one, row)]
        return {one: row for one, row in rows.items() if goes_on(one, row)}, behind

    def _price(self, row: TrialRow) -> float:
        share = 1 - self._still_learning() if row.codec is CodecId.DENSE else 1
        return share * _candidate(row).price(row.bytes, self._profile) / max(1, row.raw_bytes)

    def _still_learning(self) -> float:
        """By how much the dense codec is larger on the pieces than it will be on the stack."""
        longest = max(piece.raw.size for piece in self._pieces)
        frames = min(self._frames, self._segment_frames)
        rows = band_rows(self._layout, frames, CodecId.DENSE)
        band = max(longest, frames * rows * self._layout.row_bytes)
        return min(_MOST_LEARNING, _LEARNING / longest - _LEARNING / band)

    def _cheapest(self, table: Sequence[TrialRow]) -> TrialRow:
        still = [row.bytes for row in table if row.codec in self._bounding()]
        bound = min(still, default=math.inf)
        allowed = [row for row in table if row.bytes <= bound or row.codec not in (*OWN, *VIDEO)]
        return min(allowed, key=lambda row: (self._price(row), _candidate(row).halvings, row.codec))

    def _bounding(self) -> tuple[CodecId, ...]:
        return (CodecId.JPEGLS,) if self._profile is Profile.FAST else STILL


def _candidate(row: TrialRow) -> Candidate:
    return Candidate(row.codec, row.settings)


def _referring(one: Candidate, distances: tuple[int, ...]) -> Candidate:
    return Candidate(one.codec, dataclasses.replace(one.settings, references=distances))


def _hurried(one: Candidate) -> Candidate:
    effort = _HURRIED.get(one.codec, 1)
    return Candidate(one.codec, dataclasses.replace(one.settings, effort=min(effort, one.settings.effort)))


def _attempt(
    pieces: Sequence[_Piece], layout: PixelLayout, one: Candidate, *, check: bool = True
) -> TrialRow | None:
    """What a candidate makes of pieces; None where it refuses them or, checked, gives back others."""
    raw_bytes, total, encode_s, decode_s = 0, 0, 0.0, 0.0
    try:
        for piece in pieces:
            started = time.perf_counter()
            payload = encode_band(piece.raw, layout, piece.rows, one.codec, one.settings)
            encoded = time.perf_counter()
            encode_s += encoded - started
            raw_bytes += piece.raw.size
            total += len(payload)
            if not check:
                continue
            found = decode_band(payload, layout, piece.rows, len(piece.raw), one.codec)
            decode_s += time.perf_counter() - encoded
            if any(found[index] != frame.tobytes() for index, frame in enumerate(piece.raw)):
                return None
    except CodecError:
        return None
    return TrialRow(one.codec, one.settings, raw_bytes, total, encode_s, decode_s)


def _reason(table: Sequence[TrialRow], chosen: TrialRow) -> str:
    def named(row: TrialRow) -> str:
        name = at_level(row.codec.name.lower(), row.settings.level)
        return f"{name} {row.raw_bytes / max(1, row.bytes):.2f}:1"

    others = sorted((row for row in table if row is not chosen), key=lambda row: row.bytes)
    if not others or others[0].bytes == 0:
        return named(chosen)
    other = others[0]
    if other.bytes >= chosen.bytes:
        return f"{named(chosen)}; next {named(other)}"
    gain = 100 * (1 - other.bytes / chosen.bytes)
    slower = _candidate(other).halvings > _candidate(chosen).halvings
    why = "reads slower" if slower else "not on a piece as long as a segment"
    return f"{named(chosen)}; {other.codec.name.lower()} is {gain:.1f} % smaller but {why}"
