"""Colour for codecs of one sample: the samples of a pixel become planes, each with a stream of its own.

Owns the reversible colour transforms and the framing of the streams; what codes a plane is given.  A plane
is a stack of frames like that of a grey image, so neighbours in time predict in each of them.

Payload: u8 transform, then a stream for each plane, framed by `join_streams`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import FrameCodec, Planes, Settings, join_streams, split_streams
from dicomfs.errors import CodecError

APART, FROM_SECOND, PAIRED = range(3)
"""Samples as they are; samples 0 and 2 as differences from sample 1; samples 0 and 1 side by side in one
plane (two pixels that share their chrominance, PS3.3 C.7.6.3.1.2), then samples 2 and 3."""
_SAMPLES = {FROM_SECOND: 3, PAIRED: 4}
_SHOWN_ROWS = 64


def encode_components(coder: FrameCodec, planes: Planes, bits: int, settings: Settings) -> bytes:
    """Code planes of shape (frames, rows, columns, samples) with a codec of one sample.

    Raises:
        CodecError: the codec does not take them.
    """
    transform = _smoothest(planes, bits)
    streams = [coder.encode(plane, bits, settings) for plane in _forward(planes, bits, transform)]
    return bytes([transform]) + join_streams(streams)


def decode_components(
    coder: FrameCodec,
    payload: memoryview,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    bits: int,
    wanted: Collection[int],
) -> Iterator[tuple[int, Planes]]:
    """Yield the ``wanted`` frames of a band of ``shape`` (frames, rows, columns, samples), as codecs do.

    Raises:
        CodecError: as `FrameCodec.decode`.
    """
    frames, rows, columns, samples = shape
    transform = payload[0] if len(payload) > 0 else -1
    if transform not in (APART, FROM_SECOND, PAIRED) or _SAMPLES.get(transform, samples) != samples:
        raise CodecError(coder.name, "unknown colour transform")
    widths = [2 * columns, columns, columns] if transform == PAIRED else [columns] * samples
    streams = split_streams(coder.name, payload[1:], len(widths))
    decoded = [
        coder.decode(stream, (frames, rows, width), dtype, bits, wanted)
        for stream, width in zip(streams, widths, strict=True)
    ]
    for found in zip(*decoded, strict=True):
        yield found[0][0], _inverse([plane for _, plane in found], bits, transform)


def _forward(planes: Planes, bits: int, transform: int) -> list[Planes]:
    if transform == PAIRED:
        frames, rows, columns, _ = planes.shape
        pairs = np.ascontiguousarray(planes[..., :2]).reshape(frames, rows, 2 * columns)
        return [pairs, *(np.ascontiguousarray(planes[..., sample]) for sample in (2, 3))]
    found = [np.ascontiguousarray(planes[..., sample]) for sample in range(planes.shape[3])]
    if transform == FROM_SECOND:
        for sample in (0, 2):
            found[sample] = _difference(found[sample], found[1], bits)
    return found


def _inverse(found: list[Planes], bits: int, transform: int) -> Planes:
    if transform == PAIRED:
        rows, columns = found[1].shape
        return np.concatenate([found[0].reshape(rows, columns, 2), np.stack(found[1:], axis=2)], axis=2)
    if transform == FROM_SECOND:
        mask, half = _mask_and_half(found[1], bits)
        for sample in (0, 2):
            found[sample] = (found[sample] + found[1] - half) & mask
    return np.stack(found, axis=2)


def _difference(samples: Planes, second: Planes, bits: int) -> Planes:
    mask, half = _mask_and_half(samples, bits)
    found: Planes = (samples - second + half) & mask
    return found


def _mask_and_half(planes: Planes, bits: int) -> tuple[Any, Any]:
    return planes.dtype.type((1 << bits) - 1), planes.dtype.type(1 << (bits - 1))


def _smoothest(planes: Planes, bits: int) -> int:
    """The transform whose planes differ least from pixel to pixel, judged by some rows of a middle frame."""
    samples = planes.shape[3]
    offered = [APART, *(transform for transform, count in _SAMPLES.items() if count == samples)]
    middle = planes[len(planes) // 2]
    shown = middle[:: max(1, len(middle) // _SHOWN_ROWS)][None]
    costs = {one: sum(map(_roughness, _forward(shown, bits, one))) for one in offered}
    return min(costs, key=lambda one: (costs[one], one))


def _roughness(plane: Planes) -> float:
    values: npt.NDArray[np.int32] = plane.astype(np.int32)
    return float(np.log2(1.0 + np.abs(np.diff(values, axis=-1))).sum())
