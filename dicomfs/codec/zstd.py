"""Zstandard over words of any size, and over plain bytes for the other modules of this package.

Owns the filters before the compressor (difference along the row, byte shuffle) and the bounds at decoding.
Takes what no image codec takes: floats, 32 and 64 bit, one-row stacks.

Payload: one byte naming the filter (bit 0 byte shuffle, bit 1 difference from the left pixel), then one
Zstandard frame without content size and checksum (RFC 8878).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import zstandard

from dicomfs.codec.base import EFFORT_DENSE, CodecId, Planes, Settings
from dicomfs.errors import CodecError

_SHUFFLE, _DELTA = 1, 2
_LEVELS = (1, 1, 3, 5, 7, 9, 13, 17, 19, 19)
_TRIAL_BYTES = 1 << 18
_WIDE = 4


def squeeze(data: bytes, level: int = 9) -> bytes:
    """Compress bytes; the length is not stored."""
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=False, write_checksum=False)
    return compressor.compress(data)


def expand(payload: bytes | memoryview, size: int) -> bytes:
    """Undo `squeeze` for exactly ``size`` bytes; raises `CodecError` and allocates no more than that."""
    try:
        # A declared content size would overrule the bound below.
        parameters = zstandard.get_frame_parameters(payload)
        if parameters.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, size):
            raise CodecError("zstd", "the frame declares another length")
        data = zstandard.ZstdDecompressor().decompress(
            payload, max_output_size=max(size, 1), allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CodecError("zstd", str(error)) from error
    if len(data) != size:
        raise CodecError("zstd", f"{len(data)} bytes instead of {size}")
    return data


def _filter(planes: Planes, variant: int) -> bytes:
    if variant & _DELTA:
        planes = planes.copy()
        planes[:, :, 1:] -= planes[:, :, :-1].copy()
    if variant & _SHUFFLE:
        return planes.reshape(-1).view(np.uint8).reshape(-1, planes.itemsize).T.tobytes()
    return planes.tobytes()


def _unfilter(data: bytes, shape: Sequence[int], dtype: np.dtype[Any], variant: int) -> Planes:
    values = np.frombuffer(data, np.uint8)
    if variant & _SHUFFLE:
        values = np.ascontiguousarray(values.reshape(dtype.itemsize, -1).T).reshape(-1)
    planes: Planes = values.view(dtype).reshape(shape)
    if variant & _DELTA:
        # Sums wrap like the differences did.
        planes = np.add.accumulate(planes, axis=2, dtype=dtype)
    return planes


class Zstd:
    """Zstandard with the filter that does best on a piece of the band."""

    name = "zstd"
    id = CodecId.ZSTD
    random_access = False

    def unavailable(self) -> str:
        """Return an empty string: the library is a hard dependency."""
        return ""

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take everything."""
        return bits <= planes.itemsize * 8

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:  # noqa: ARG002 - any depth
        """Compress the whole band as one stream; never raises."""
        level = _LEVELS[max(0, min(settings.effort, 9))]
        frame_bytes = max(1, planes.nbytes // max(1, len(planes)))
        sample = planes[:: max(1, len(planes) * frame_bytes // _TRIAL_BYTES)]
        sample = sample[:, : max(1, sample.shape[1] * _TRIAL_BYTES // max(1, sample.nbytes))]
        sample = np.ascontiguousarray(sample)
        variants = (0, _DELTA) if planes.itemsize == 1 else (0, _SHUFFLE, _DELTA, _SHUFFLE | _DELTA)
        best = min(variants, key=lambda variant: len(squeeze(_filter(sample, variant), min(level, 5))))
        # Wide words may repeat far away, which filters hide and a sample does not show.
        kept = {0, best} if planes.itemsize >= _WIDE and settings.effort >= EFFORT_DENSE else {best}
        return min((bytes([one]) + squeeze(_filter(planes, one), level) for one in sorted(kept)), key=len)

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,  # noqa: ARG002 - any depth
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decompress the band as a whole; see `FrameCodec.decode`."""
        if not payload or payload[0] > (_SHUFFLE | _DELTA):
            raise CodecError(self.name, "unknown filter")
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        planes = _unfilter(expand(payload[1:], size), shape, dtype, payload[0])
        for index in sorted(wanted):
            yield index, planes[index]
