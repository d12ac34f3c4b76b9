"""The reversible way from raw pixel words to the sample planes that image codecs like.

Owns the choice of the transform, made from the words of the band themselves, and its header; does not
compress samples.  Every step is exact for every input; the hints of the layout only add candidates.

A word (8 or 16 bits) is read in the chosen byte order and cut into a *field* of ``width`` bits above
``shift`` and the *rest*, the bits outside the field.  The rest is either the same for all words
(``fixed``) or kept as a plane of its own.  Fields are numbers on a circle of ``2**width``: ``offset`` is
where counting starts, which covers signed samples, sign extension and a minimum other than zero alike.
Then one hole in the histogram is closed: samples from ``fold_at`` on stand for ``fold_size`` more (the
padding value of CT lies far below all others, for instance).  The samples left fit in ``bits``.

Header, little-endian (15 bytes): flags u8 (1 = big-endian words, 2 = rest plane follows), shift u8,
width u8, bits u8, fixed u16, offset u16, fold_at u16, fold_size u16, length of the rest plane u24;
then the rest plane: a Zstandard frame of the low bytes, then for 16 bits the high bytes, of all
(word & ~field).
With ``bits`` = 0 all samples are zero and nothing follows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import Planes
from dicomfs.codec.own import Field, to_words
from dicomfs.codec.zstd import expand, squeeze
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

Words = npt.NDArray[np.unsignedinteger[Any]]

_HEADER = struct.Struct("<BBBBHHHHHB")
_BIG_ENDIAN, _REST = 1, 2
_LARGEST_REST = (1 << 24) - 1
_SAMPLED_WORDS = 1 << 16
_WORTH_CLOSING = 8


@dataclass(frozen=True, slots=True)
class Transform:
    """How the words of one band become samples; the terms are those of the module's header."""

    shift: int
    width: int
    fixed: int = 0
    offset: int = 0
    fold_at: int = 0
    fold_size: int = 0
    bits: int = 0
    big_endian: bool = False
    rest: bool = False

    @property
    def field_mask(self) -> int:
        """Bits of a word that belong to the field."""
        return ((1 << self.width) - 1) << self.shift

    @property
    def plain(self) -> bool:
        """Whether samples are the words themselves."""
        return not (self.shift or self.fixed or self.offset or self.fold_size or self.rest)

    def forward(self, words: Words) -> npt.NDArray[np.uint16]:
        """Turn native words into samples."""
        modulus = (1 << self.width) - 1
        out = words.astype(np.uint16)
        out >>= np.uint16(self.shift)
        out &= np.uint16(modulus)
        out -= np.uint16(self.offset)
        out &= np.uint16(modulus)
        if self.fold_size:
            out -= np.multiply(out >= self.fold_at + self.fold_size, self.fold_size, dtype=np.uint16)
        return out

    @property
    def field(self) -> Field:
        """How samples become native words, but for the rest plane."""
        return self.fold_at, self.fold_size, self.offset, (1 << self.width) - 1, self.shift, self.fixed


@dataclass(frozen=True, slots=True)
class SamplePlanes:
    """Samples of a band with the header that leads back to its raw bytes."""

    header: bytes
    planes: Planes
    bits: int


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """A transform read from a payload, with the rest plane if there is one."""

    transform: Transform
    rest: npt.NDArray[np.uint16] | None
    length: int
    """Bytes of the header with its rest plane."""


def _word_type(layout: PixelLayout, big_endian: bool) -> np.dtype[Any]:
    return np.dtype(np.uint8) if layout.bits_allocated == 8 else np.dtype(">u2" if big_endian else "<u2")


def _roughness(samples: Words, step: int) -> int:
    """Bits that the differences between horizontal neighbours take: cheap stand-in for a coder."""
    values = samples.astype(np.float32)
    steps = values[:, step:] - values[:, :-step] if values.shape[1] > step else values
    # The exponent of a number tells how many bits it has, but 126 too many of those that are not 0.
    exponents = np.abs(steps).view(np.int32) >> 23
    return int(exponents.sum(dtype=np.int64)) - 126 * int(np.count_nonzero(steps))


def _sampled_rows(rows: Words) -> Words:
    count = max(1, min(len(rows), _SAMPLED_WORDS // max(1, rows.shape[1])))
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.intp)][:, :_SAMPLED_WORDS]


def _fields(values: Words, layout: PixelLayout, word_bits: int) -> list[Transform]:
    """Return candidate fields: all bits that vary, the lowest run of them, and what the metadata says."""
    varying = int(np.bitwise_or.reduce(values ^ values[0]))
    if not varying:
        return [Transform(0, 0, fixed=int(values[0]))]
    shift = (varying & -varying).bit_length() - 1
    run = ((varying >> shift) + 1 & ~(varying >> shift)).bit_length() - 1
    claimed = (layout.high_bit + 1 - layout.bits_stored, layout.bits_stored)
    out: list[Transform] = []
    for start, width in ((shift, varying.bit_length() - shift), (shift, run), claimed):
        if (
            start < 0
            or width < 1
            or start + width > word_bits
            or any((known.shift, known.width) == (start, width) for known in out)
        ):
            continue
        mask = ((1 << width) - 1) << start
        rest = bool(varying & ~mask)
        out.append(Transform(start, width, fixed=0 if rest else int(values[0]) & ~mask, rest=rest))
    return out


def _starts(present: npt.NDArray[np.int64], gaps: npt.NDArray[np.int64], middle: int | None) -> list[int]:
    """Return the values, by number, at which counting may start.

    The least one, those behind large gaps, and the least from the middle of the circle on (for signed words).
    Small gaps are no reason: values on both sides of them are neighbours in the image.
    """
    starts = [0]
    left = gaps.copy()
    for _ in range(2):
        index = int(left.argmax())
        if left[index] > _WORTH_CLOSING:
            starts.append((index + 1) % len(present))
            left[index] = 0
    if middle is not None:
        starts.append(int(np.searchsorted(present, middle)) % len(present))
    return list(dict.fromkeys(starts))


def _offsets(field: Transform, values: Words, signed: bool) -> list[Transform]:
    """Return candidates for where to start counting and which hole to close; ``values``: distinct, rising."""
    if not field.width:
        return [field]
    modulus = 1 << field.width
    present = (values.astype(np.int64) & field.field_mask) >> field.shift
    if field.rest:
        present = np.unique(present)
    gaps = np.diff(present, append=present[0] + modulus)
    out = []
    for first in _starts(present, gaps, modulus // 2 if signed else None):
        start, last = int(present[first]), int(present[first - 1])
        holes = np.concatenate((gaps[first:], gaps[:first]))[:-1]
        top, fold_at, fold_size = (last - start) % modulus, 0, 0
        if len(holes) and int(holes.max()) > _WORTH_CLOSING:
            where = int(holes.argmax())
            fold_at = (int(present[(first + where) % len(present)]) - start) % modulus + 1
            fold_size = int(holes[where]) - 1
        out.append(
            Transform(
                field.shift,
                field.width,
                field.fixed,
                start,
                fold_at,
                fold_size,
                (top - fold_size).bit_length(),
                rest=field.rest,
            )
        )
    return out


def _rest_bytes(words: Words, transform: Transform) -> bytes:
    mask = words.dtype.type(~transform.field_mask & ((1 << 8 * words.itemsize) - 1))
    rest = np.ascontiguousarray(words & mask).astype(words.dtype.newbyteorder("<"), copy=False)
    return rest.reshape(-1).view(np.uint8).reshape(-1, words.itemsize).T.tobytes()


def _choose(rows: Words, layout: PixelLayout) -> Transform:
    word_bits = rows.dtype.itemsize * 8
    seen = np.zeros(1 << word_bits, np.bool_)
    seen[rows.reshape(-1)] = True
    values = np.flatnonzero(seen).astype(np.uint16)
    sample = _sampled_rows(rows)

    def price(candidate: Transform) -> int:
        bits = _roughness(candidate.forward(sample), max(1, layout.samples))
        return bits + (8 * len(squeeze(_rest_bytes(sample, candidate), 1)) if candidate.rest else 0)

    candidates = [
        chosen
        for field in _fields(values, layout, word_bits)
        for chosen in _offsets(field, values, layout.signed)
    ]
    return candidates[0] if len(candidates) == 1 else min(candidates, key=price)


def _looks_big_endian(raw: npt.NDArray[np.uint8], layout: PixelLayout) -> bool:
    """Trust the layout's byte order unless the other one is far smoother."""
    if layout.bits_allocated == 8:
        return False
    rows = _sampled_rows(
        raw.reshape(-1, max(2, layout.row_bytes)).view(_word_type(layout, layout.big_endian))
    )
    claimed = rows.astype(np.uint16)
    step = max(1, layout.samples)
    return layout.big_endian ^ (_roughness(claimed.byteswap(), step) * 4 < _roughness(claimed, step) * 3)


def to_planes(raw: npt.NDArray[np.uint8], layout: PixelLayout, rows: int) -> SamplePlanes:
    """Turn the raw bytes of a band, (frames, rows * row_bytes), into samples of the least bits.

    Only for 8 and 16 bits allocated and at least one word; anything else raises `CodecError`.
    """
    if layout.bits_allocated not in (8, 16) or layout.is_float or raw.size == 0:
        raise CodecError("planes", "only integers of 8 or 16 bits have sample planes")
    big_endian = _looks_big_endian(raw, layout)
    words = raw.reshape(-1, layout.row_bytes).view(_word_type(layout, big_endian))
    native: Words = words.astype(words.dtype.newbyteorder("="), copy=False)
    chosen = _choose(native, layout)
    rest = squeeze(_rest_bytes(native, chosen)) if chosen.rest else b""
    if len(rest) > _LARGEST_REST:
        raise CodecError("planes", "the bits outside the samples do not fit in a band")
    samples: Planes = native if chosen.plain else chosen.forward(native)
    samples = samples.astype(np.uint8 if chosen.bits <= 8 else np.uint16, copy=False)
    flags = (_BIG_ENDIAN if big_endian else 0) | (_REST if chosen.rest else 0)
    header = _HEADER.pack(
        flags, chosen.shift, chosen.width, chosen.bits, chosen.fixed, chosen.offset, chosen.fold_at,
        chosen.fold_size, len(rest) & 0xFFFF, len(rest) >> 16,
    )  # fmt: skip
    return SamplePlanes(header + rest, samples.reshape(plane_shape(layout, len(raw), rows)), chosen.bits)


def plane_shape(layout: PixelLayout, frames: int, rows: int) -> tuple[int, ...]:
    """Return (frames, rows, columns), with the samples as a fourth axis where there are several."""
    shape = (frames, rows, layout.columns)
    return shape if layout.samples == 1 else (*shape, layout.samples)


def parse_header(payload: memoryview, layout: PixelLayout, rows: int, frames: int) -> ParsedHeader:
    """Read the header at the start of ``payload``; raises `CodecError` when it makes no sense."""
    if len(payload) < _HEADER.size:
        raise CodecError("planes", "the header is cut off")
    flags, shift, width, bits, fixed, offset, fold_at, fold_size, low, high = _HEADER.unpack_from(payload)
    if flags > (_BIG_ENDIAN | _REST) or shift + width > layout.bits_allocated or bits > layout.bits_allocated:
        raise CodecError("planes", "the header is damaged")
    transform = Transform(
        shift, width, fixed, offset, fold_at, fold_size, bits, bool(flags & _BIG_ENDIAN), bool(flags & _REST)
    )
    length = _HEADER.size + (low | high << 16)
    if not transform.rest:
        if length != _HEADER.size:
            raise CodecError("planes", "the header is damaged")
        return ParsedHeader(transform, None, length)
    count = frames * rows * layout.columns * layout.samples
    if length > len(payload):
        raise CodecError("planes", "the rest plane is cut off")
    word_bytes = layout.bits_allocated // 8
    data = expand(payload[_HEADER.size : length], word_bytes * count)
    rest = np.zeros((frames, count // frames), np.uint16)
    for place, byte in enumerate(np.frombuffer(data, np.uint8).reshape(word_bytes, frames, -1)):
        rest |= byte.astype(np.uint16) << np.uint16(8 * place)
    return ParsedHeader(transform, rest, length)


def native_word(layout: PixelLayout) -> np.dtype[Any]:
    """The type of words that samples stand for before their byte order is changed."""
    return _word_type(layout, big_endian=False)


def to_raw(parsed: ParsedHeader, first: int, samples: Planes, layout: PixelLayout) -> Iterator[bytes]:
    """Turn the samples of neighbouring frames, ``first`` and on, back into raw bytes of the band's rows."""
    words = to_words(samples, parsed.transform.field, native_word(layout))
    return words_to_raw(parsed, first, words, len(words) // len(samples), layout)


def words_to_raw(
    parsed: ParsedHeader, first: int, words: bytes, frame_bytes: int, layout: PixelLayout
) -> Iterator[bytes]:
    """As `to_raw`, from the native words that the samples of those frames stand for."""
    stored, native = _word_type(layout, parsed.transform.big_endian), native_word(layout)
    if parsed.rest is not None or stored != native:
        frames: Words = np.frombuffer(words, native).reshape(-1, frame_bytes // native.itemsize)
        if parsed.rest is not None:
            frames = frames | parsed.rest[first : first + len(frames)].astype(native)
        words = frames.astype(stored, copy=False).tobytes()
    yield from (words[start : start + frame_bytes] for start in range(0, len(words), frame_bytes))
