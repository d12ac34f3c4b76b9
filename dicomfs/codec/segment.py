"""Bands of a segment as byte strings that decode on their own: the codec layer's way in and out.

Owns the cut into segments and bands, the first byte of a band payload and the joint between raw bytes,
sample planes and codecs; does not choose codecs (``trial``) and does not check digests.

Payload of a band: for `CodecId.RAW` the raw bytes of all frames and nothing else.  Otherwise one byte of
kind (0 = nothing to store, 1 = words as they are, 2 = words in the other byte order than little-endian,
3 = sample planes, 4 = the same with a stream for each sample of the pixel, 5 = planes of wide words), for
kinds 3 and 4 the header of ``planes``, for 5 that of ``wide``, then the codec's payload.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import FROM_DISK, ON_DISK, CodecId, FrameCodec, Profile, Settings
from dicomfs.codec.components import decode_components, encode_components
from dicomfs.codec.own import Dense, Fast
from dicomfs.codec.planes import native_word, parse_header, plane_shape, to_planes, to_raw, words_to_raw
from dicomfs.codec.registry import codec as codec_by_id
from dicomfs.codec.wide import cuts, is_wide, joined, narrow, pack, unpack
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_BAND_BYTES = _MIB // 2
_LEAST_ROWS = 16
_OWN = (CodecId.FAST, CodecId.DENSE)
_HALVED_BYTES = _MIB // 4
_HARDLY_SMALLER = 0.95
_DEFAULT = Settings()
_SEGMENT_BYTES = {Profile.FAST: 8 * _MIB, Profile.DENSE: 4 * _MIB, Profile.ARCHIVE: 4 * _MIB}

_EMPTY, _WORDS, _SWAPPED_WORDS, _SAMPLES, _COMPONENTS, _WIDE = range(6)
_OF_ONE_SAMPLE = (CodecId.FAST, CodecId.DENSE, CodecId.HEVC)
"""Codecs that know no colour: they get a plane for each sample."""


def band_rows(layout: PixelLayout, frames: int, codec: CodecId = CodecId.RAW) -> int:
    """Return the rows of a band in a segment of ``frames`` frames.

    Frames of at most 1 MiB are one band; larger ones have bands of about 512 KiB a frame: a multiple of 8
    rows, at least 16.  Our own codecs decode a frame in the time of its largest band when processors are
    idle: from 256 KiB on, their frames have two bands.
    """
    if layout.frame_bytes <= _MIB or frames < 1:
        if codec in _OWN and layout.frame_bytes >= _HALVED_BYTES and layout.rows >= 2 * _LEAST_ROWS:
            return -(-layout.rows // (2 * _LEAST_ROWS)) * _LEAST_ROWS
        return max(1, layout.rows)
    rows = _BAND_BYTES // max(1, layout.row_bytes) // 8 * 8
    return min(layout.rows, max(_LEAST_ROWS, rows))


def segment_frames(layout: PixelLayout, profile: Profile) -> int:
    """Return the frames of a segment: about 8 MiB of raw bytes when fast, 4 MiB otherwise, at least one."""
    return max(1, _SEGMENT_BYTES[profile] // max(1, layout.frame_bytes))


def _word_shape(layout: PixelLayout, frames: int, rows: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of the band as words of the allocated size; as bytes where that is unusual."""
    if layout.bits_allocated in (8, 16, 32, 64):
        return plane_shape(layout, frames, rows), np.dtype(f"<u{layout.bits_allocated // 8}")
    return (frames, rows, layout.row_bytes), np.dtype(np.uint8)


def encode_band(
    raw: npt.NDArray[np.uint8],
    layout: PixelLayout,
    rows: int,
    codec: CodecId,
    settings: Settings = _DEFAULT,
) -> bytes:
    """Code the raw bytes of a band, (frames, rows * row_bytes), without loss whatever the hints say.

    Raises `CodecError` when the codec does not take these samples, `CodecUnavailable` when it is missing.
    Does not decode again to compare: sealing a pack does.
    """
    if raw.ndim != 2 or raw.dtype != np.uint8 or raw.shape[1] != rows * layout.row_bytes:
        raise CodecError(
            codec.name.lower(), f"a band of {raw.shape} bytes is not {rows} rows of {layout.row_bytes}"
        )
    coder = codec_by_id(codec)
    if codec is CodecId.RAW:
        return coder.encode(raw, 8, settings)
    if not raw.size:
        return bytes([_EMPTY])
    raw = np.ascontiguousarray(raw)
    if codec is CodecId.ZSTD:
        shape, word = _word_shape(layout, len(raw), rows)
        swapped = layout.big_endian and word.itemsize > 1
        words = raw.reshape(-1).view(word).reshape(shape)
        planes = words.byteswap() if swapped else words
        return bytes([_SWAPPED_WORDS if swapped else _WORDS]) + coder.encode(
            planes, 8 * word.itemsize, settings
        )
    if is_wide(layout):
        return bytes([_WIDE]) + _encode_wide(raw, layout, rows, codec, settings)
    found = to_planes(raw, layout, rows)
    if found.bits and found.planes.ndim > 3 and codec in _OF_ONE_SAMPLE:
        coded = encode_components(coder, found.planes, found.bits, settings)
        return bytes([_COMPONENTS]) + found.header + coded
    head = bytes([_SAMPLES]) + found.header
    return head if not found.bits else head + coder.encode(found.planes, found.bits, settings)


@dataclass(frozen=True, slots=True)
class CodedSegment:
    """The bands of a segment as they are stored, and the codec that all of them got."""

    codec: CodecId
    bands: tuple[CodedBand, ...]


@dataclass(frozen=True, slots=True)
class CodedBand:
    """Rows ``first_row`` to ``first_row + rows`` of all frames of a segment."""

    first_row: int
    rows: int
    payload: bytes


def band_cuts(layout: PixelLayout, frames: int, codec: CodecId) -> list[tuple[int, int]]:
    """Return (first row, rows) of each band of a segment."""
    height = band_rows(layout, frames, codec)
    return [(start, min(height, layout.rows - start)) for start in range(0, layout.rows, height)]


def band_of(
    raw: npt.NDArray[np.uint8], layout: PixelLayout, first_row: int, rows: int
) -> npt.NDArray[np.uint8]:
    """Cut a band, (frames, rows * row_bytes), out of whole frames, (frames, frame_bytes)."""
    return np.ascontiguousarray(raw[:, first_row * layout.row_bytes : (first_row + rows) * layout.row_bytes])


def encode_segment(
    raw: npt.NDArray[np.uint8], layout: PixelLayout, codec: CodecId, settings: Settings = _DEFAULT
) -> CodedSegment:
    """Code whole frames, (frames, frame_bytes), with a codec that a trial on other frames chose.

    Frames that it does not take, or hardly makes smaller, get the smallest of it, Zstandard and raw bytes.
    """
    best: CodedSegment | None = None
    for candidate in dict.fromkeys((codec, CodecId.ZSTD, CodecId.RAW)):
        try:
            coded = CodedSegment(
                candidate,
                tuple(
                    CodedBand(
                        first,
                        rows,
                        encode_band(band_of(raw, layout, first, rows), layout, rows, candidate, settings),
                    )
                    for first, rows in band_cuts(layout, len(raw), candidate)
                ),
            )
        except CodecError as refusal:
            logger.info(
                "segment coded otherwise than the trial said",
                extra={"frames": len(raw), "codec": candidate.name.lower(), "reason": str(refusal)},
            )
            continue
        if best is None or _stored(coded) < _stored(best):
            best = coded
        # What wide words repeat over many frames, a trial on a few did not see.
        if candidate is codec and _stored(coded) < raw.size * _HARDLY_SMALLER and not is_wide(layout):
            break
    assert best is not None
    return best


def _stored(segment: CodedSegment) -> int:
    return sum(len(band.payload) for band in segment.bands)


def decode_band(
    payload: bytes | memoryview,
    layout: PixelLayout,
    rows: int,
    frames: int,
    codec: CodecId,
    wanted: Collection[int] | None = None,
) -> dict[int, bytes]:
    """Return the raw bytes of the band's rows for each wanted frame (all when ``wanted`` is None).

    Raises as `decode_frames` does.
    """
    return dict(decode_frames(payload, layout, rows, frames, codec, wanted))


def decode_frames(
    payload: bytes | memoryview,
    layout: PixelLayout,
    rows: int,
    frames: int,
    codec: CodecId,
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Yield number and raw bytes of the band's rows of each wanted frame, as soon as it is decoded.

    In rising order; what codecs decode beyond a frame, they decode when the next one is asked for.

    Raises `CodecError` for a payload that does not decode to that shape, and for frames outside of it.
    Memory stays within a small multiple of the band's raw size.
    """
    view = memoryview(payload)
    chosen = range(frames) if wanted is None else sorted(set(wanted))
    if len(chosen) > 0 and (chosen[0] < 0 or chosen[-1] >= frames):
        raise CodecError(codec.name.lower(), f"the band has {frames} frames, not those asked for")
    size = rows * layout.row_bytes
    coder = codec_by_id(codec)
    if codec is CodecId.RAW:
        for index, frame in coder.decode(view, (frames, size), np.dtype(np.uint8), 8, chosen):
            yield index, frame.tobytes()
        return
    kind = view[0] if len(view) > 0 else -1
    if not size * frames:
        if kind != _EMPTY:
            raise CodecError(codec.name.lower(), "the band has no bytes but its payload has")
        for index in chosen:
            yield index, b""
    elif kind in (_WORDS, _SWAPPED_WORDS):
        shape, word = _word_shape(layout, frames, rows)
        stored = word.newbyteorder(">") if kind == _SWAPPED_WORDS else word
        for index, words in coder.decode(view[1:], shape, word, 8 * word.itemsize, chosen):
            yield index, words.astype(stored, copy=False).tobytes()
    elif kind == _WIDE and is_wide(layout):
        yield from _decode_wide(view[1:], layout, rows, frames, chosen)
    elif kind == _SAMPLES or (kind == _COMPONENTS and layout.samples > 1 and codec in _OF_ONE_SAMPLE):
        apart = kind == _COMPONENTS
        yield from _decode_samples(view[1:], layout, rows, frames, coder, chosen, apart=apart)
    else:
        raise CodecError(codec.name.lower(), "unknown kind of band")


def _encode_wide(
    raw: npt.NDArray[np.uint8], layout: PixelLayout, rows: int, codec: CodecId, settings: Settings
) -> bytes:
    """The smallest way to make planes of a band, each of them coded as a band of its own."""
    found = []
    for wide, planes in cuts(raw, layout, rows):
        words = [plane.astype("<u2").reshape(len(raw), -1).view(np.uint8) for plane in planes]
        found.append(pack(wide, [_encode_plane(one, layout, rows, codec, settings) for one in words]))
    return min(found, key=len)


def _encode_plane(
    words: npt.NDArray[np.uint8], layout: PixelLayout, rows: int, codec: CodecId, settings: Settings
) -> bytes:
    """Of the codec or, where that is smaller, of the fast one, Zstandard or raw bytes."""
    tried = []
    for one in dict.fromkeys((codec, CodecId.FAST, CodecId.ZSTD, CodecId.RAW)):
        with contextlib.suppress(CodecError):
            coded = encode_band(words, narrow(layout), rows, one, settings)
            tried.append(bytes([ON_DISK[one]]) + coded)
    return min(tried, key=len)


def _decode_wide(
    view: memoryview, layout: PixelLayout, rows: int, frames: int, chosen: Collection[int]
) -> Iterator[tuple[int, bytes]]:
    wide, streams = unpack(view, layout)
    shape = (rows, layout.columns * layout.samples)
    planes = []
    for stream in streams:
        codec = FROM_DISK.get(stream[0]) if len(stream) > 0 else None
        if codec is None:
            raise CodecError("wide", "a plane of an unknown codec")
        planes.append(decode_frames(stream[1:], narrow(layout), rows, frames, codec, chosen))
    if not planes:
        constant = joined(wide, [], shape, layout)
        yield from ((index, constant) for index in chosen)
    for found in zip(*planes, strict=True):
        words = [np.frombuffer(data, "<u2") for _, data in found]
        yield found[0][0], joined(wide, words, shape, layout)


def _decode_samples(
    view: memoryview,
    layout: PixelLayout,
    rows: int,
    frames: int,
    coder: FrameCodec,
    chosen: Collection[int],
    *,
    apart: bool,
) -> Iterator[tuple[int, bytes]]:
    if layout.bits_allocated not in (8, 16):
        raise CodecError("planes", "sample planes of words that have none")
    parsed = parse_header(view, layout, rows, frames)
    shape, bits = plane_shape(layout, frames, rows), parsed.transform.bits
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    body = view[parsed.length :]
    if bits and not apart and isinstance(coder, (Fast, Dense)):
        keep = frozenset(chosen)
        field, word = parsed.transform.field, native_word(layout)
        for first, words in coder.decode_words(body, shape, dtype, bits, keep, field, word):
            raws = enumerate(words_to_raw(parsed, first, words, rows * layout.row_bytes, layout), first)
            yield from ((index, raw) for index, raw in raws if index in keep)
        return
    if bits and apart:
        found = decode_components(coder, body, shape, dtype, bits, chosen)
    elif bits:
        found = coder.decode(body, shape, dtype, bits, chosen)
    elif len(body) > 0:
        raise CodecError(coder.name, "a constant band has a payload")
    else:
        found = ((index, np.zeros(shape[1:], dtype)) for index in chosen)
    for index, samples in found:
        yield from ((index, raw) for raw in to_raw(parsed, index, samples[np.newaxis], layout))
