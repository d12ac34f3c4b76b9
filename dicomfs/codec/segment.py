"""Bands of a segment as byte strings that decode on their own: the codec layer's way in and out.

Owns the cut into segments and bands, the first byte of a band payload and the joint between raw bytes,
sample planes and codecs; does not choose codecs (``trial``) and does not check digests.

Payload of a band: for `CodecId.RAW` the raw bytes of all frames and nothing else.  Otherwise one byte of
kind (0 = nothing to store, 1 = words as they are, 2 = words in the other byte order than little-endian,
3 = sample planes), for kind 3 the header of ``planes``, then the codec's payload.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import EFFORT_FAST, CodecId, Profile
from dicomfs.codec.planes import parse_header, plane_shape, to_planes, to_raw
from dicomfs.codec.registry import codec as codec_by_id
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

_MIB = 1 << 20
_BAND_BYTES = _MIB // 2
_LEAST_ROWS = 16
_SEGMENT_BYTES = {Profile.FAST: 8 * _MIB, Profile.DENSE: 4 * _MIB, Profile.ARCHIVE: 4 * _MIB}

_EMPTY, _WORDS, _SWAPPED_WORDS, _SAMPLES = range(4)


def band_rows(layout: PixelLayout, frames: int) -> int:
    """Return the rows of a band in a segment of ``frames`` frames.

    Frames of at most 1 MiB are one band; larger ones have bands of about 512 KiB a frame: a multiple of 8
    rows, at least 16.
    """
    if layout.frame_bytes <= _MIB or frames < 1:
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
    raw: npt.NDArray[np.uint8], layout: PixelLayout, rows: int, codec: CodecId, effort: int = EFFORT_FAST
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
        return coder.encode(raw, 8, effort)
    if not raw.size:
        return bytes([_EMPTY])
    raw = np.ascontiguousarray(raw)
    if codec is CodecId.ZSTD:
        shape, word = _word_shape(layout, len(raw), rows)
        swapped = layout.big_endian and word.itemsize > 1
        words = raw.reshape(-1).view(word).reshape(shape)
        planes = words.byteswap() if swapped else words
        return bytes([_SWAPPED_WORDS if swapped else _WORDS]) + coder.encode(
            planes, 8 * word.itemsize, effort
        )
    found = to_planes(raw, layout, rows)
    head = bytes([_SAMPLES]) + found.header
    return head if not found.bits else head + coder.encode(found.planes, found.bits, effort)


def decode_band(
    payload: bytes | memoryview,
    layout: PixelLayout,
    rows: int,
    frames: int,
    codec: CodecId,
    wanted: Collection[int] | None = None,
) -> dict[int, bytes]:
    """Return the raw bytes of the band's rows for each wanted frame (all when ``wanted`` is None).

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
        found = coder.decode(view, (frames, size), np.dtype(np.uint8), 8, chosen)
        return {index: frame.tobytes() for index, frame in found.items()}
    kind = view[0] if len(view) > 0 else -1
    if kind == _EMPTY and not size * frames:
        return dict.fromkeys(chosen, b"")
    if not size * frames:
        raise CodecError(codec.name.lower(), "the band has no bytes but its payload has")
    if kind in (_WORDS, _SWAPPED_WORDS):
        shape, word = _word_shape(layout, frames, rows)
        found = coder.decode(view[1:], shape, word, 8 * word.itemsize, chosen)
        stored = word.newbyteorder(">") if kind == _SWAPPED_WORDS else word
        return {index: words.astype(stored, copy=False).tobytes() for index, words in found.items()}
    if kind == _SAMPLES:
        return _decode_samples(view[1:], layout, rows, frames, codec, chosen)
    raise CodecError(codec.name.lower(), "unknown kind of band")


def _decode_samples(
    view: memoryview, layout: PixelLayout, rows: int, frames: int, codec: CodecId, chosen: Collection[int]
) -> dict[int, bytes]:
    if layout.bits_allocated not in (8, 16):
        raise CodecError("planes", "sample planes of words that have none")
    parsed = parse_header(view, layout, rows, frames)
    shape, bits = plane_shape(layout, frames, rows), parsed.transform.bits
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    body = view[parsed.length :]
    if not bits:
        if len(body) > 0:
            raise CodecError(codec.name.lower(), "a constant band has a payload")
        found = dict.fromkeys(chosen, np.zeros(shape[1:], dtype))
    else:
        found = codec_by_id(codec).decode(body, shape, dtype, bits, chosen)
    return {index: to_raw(parsed, index, samples, layout) for index, samples in found.items()}
