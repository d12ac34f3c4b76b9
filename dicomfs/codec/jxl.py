"""JPEG XL lossless (ISO/IEC 18181-1), grey and colour up to 16 bits.

Owns the grouping of neighbouring grey frames into one three-channel image, so that the codec's reversible
colour transform predicts between frames, and the check of the codestream header before decoding.

Payload: one byte of grouping (0 = an image per frame, 1 = an image per three grey frames, the one or two
frames left over singly), then bare codestreams framed by `join_streams`.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from dicomfs.codec.base import CodecId, Planes, Settings, join_streams, split_streams
from dicomfs.errors import CodecError

try:
    import imagecodecs
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = "" if imagecodecs.JPEGXL.available else "imagecodecs was built without libjxl"

_SINGLY, _TRIPLES = 0, 1
_BARE = b"\xff\x0a"
_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class _Bits:
    """Reads bits lowest first, as the codestream header stores them."""

    __slots__ = ("_position", "_value")

    def __init__(self, data: bytes) -> None:
        self._value, self._position = int.from_bytes(data, "little"), 0

    def take(self, count: int) -> int:
        value = self._value >> self._position & ((1 << count) - 1)
        self._position += count
        return value

    def take_length(self) -> int:
        """Read a dimension: 1 + one of four widths."""
        return 1 + self.take((9, 13, 18, 30)[self.take(2)])


def frame_size(stream: bytes | memoryview) -> tuple[int, int]:
    """Rows and columns of a bare codestream; raises `CodecError`."""
    return _take_size(stream, _Bits(bytes(stream[2:34])))


def _take_size(stream: bytes | memoryview, reader: _Bits) -> tuple[int, int]:
    if stream[:2] != _BARE:
        raise CodecError("jpegxl", "not a bare codestream")
    small = reader.take(1)
    height = 8 * (1 + reader.take(5)) if small else reader.take_length()
    ratio = reader.take(3)
    if ratio:
        return height, height * _RATIOS[ratio][0] // _RATIOS[ratio][1]
    return height, 8 * (1 + reader.take(5)) if small else reader.take_length()


def _check_header(stream: memoryview, rows: int, columns: int, bits: int) -> None:
    """Refuse a codestream of another size, with animation, preview, extra channels or floats.

    The decoder allocates what the header says.  SizeHeader and ImageMetadata of ISO/IEC 18181-1.
    """
    reader = _Bits(bytes(stream[2:34]))
    height, width = _take_size(stream, reader)
    depth, odd = 8, 0
    if not reader.take(1):
        odd = reader.take(1) or reader.take(1)
        choice = reader.take(2)
        depth = (8, 10, 12)[choice] if choice < 3 else 1 + reader.take(6)
        reader.take(1)
        odd = odd or reader.take(2)
    if (height, width) != (rows, columns) or depth != bits or odd:
        raise CodecError("jpegxl", "the codestream is of another size, depth or kind")


def bare_codestream(stream: bytes) -> bytes:
    """Take the codestream out of the container, which the library insists on above 12 bits or so."""
    if stream[:2] == _BARE:
        return stream
    position, parts = 0, []
    while position + 8 <= len(stream):
        length, kind = struct.unpack_from(">I4s", stream, position)
        end = position + length if length else len(stream)
        if length == 1 or end < position + 8:
            break
        if kind in (b"jxlc", b"jxlp"):
            parts.append(stream[position + (8 if kind == b"jxlc" else 12) : end])
        position = end
    bare = b"".join(parts)
    if bare[:2] != _BARE:
        raise CodecError("jpegxl", "the encoder wrote an unknown container")
    return bare


class JpegXl:
    """JPEG XL, one codestream per frame or per three frames."""

    name = "jpegxl"
    id = CodecId.JPEGXL
    random_access = True

    def unavailable(self) -> str:
        """Return what is missing, or an empty string."""
        return _MISSING

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take grey and three samples of up to 16 bits."""
        return 1 <= bits <= planes.itemsize * 8 <= 16 and (planes.ndim == 3 or planes.shape[3] == 3)

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:
        """Code every frame, grouped by three where a trial in the middle says so; raises `CodecError`."""
        if not self.supports(planes, bits):
            raise CodecError(self.name, f"does not take frames of {planes.shape[1:]} with {bits} bits")
        grouping = _SINGLY
        if planes.ndim == 3 and len(planes) >= 3:
            middle = (len(planes) - 3) // 2
            trial, quick = planes[middle : middle + 3], min(settings.effort, 3)
            apart, together = (
                sum(len(self._encode(image, bits, quick)) for image in _images(trial, way))
                for way in (_SINGLY, _TRIPLES)
            )
            grouping = _TRIPLES if together < apart else _SINGLY
        streams = [self._encode(image, bits, settings.effort) for image in _images(planes, grouping)]
        return bytes([grouping]) + join_streams(streams)

    def _encode(self, image: Planes, bits: int, effort: int) -> bytes:
        try:
            stream = imagecodecs.jpegxl_encode(
                np.ascontiguousarray(image),
                lossless=True,
                effort=max(1, min(effort, 9)),
                bitspersample=bits,
                usecontainer=False,
                numthreads=1,
            )
            return bare_codestream(bytes(stream))
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise CodecError(self.name, str(error)) from error

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decode the images that hold the wanted frames; see `FrameCodec.decode`."""
        frames = shape[0]
        grouping = payload[0] if len(payload) > 0 else -1
        if grouping not in (_SINGLY, _TRIPLES) or (grouping == _TRIPLES and len(shape) == 4):
            raise CodecError(self.name, "unknown grouping")
        triples = frames // 3 if grouping == _TRIPLES else 0
        streams = split_streams(self.name, payload[1:], frames - 2 * triples)
        decoded: tuple[int, Planes] | None = None
        for index in sorted(wanted):
            if index >= 3 * triples:
                yield index, self._decode(streams[index - 2 * triples], tuple(shape[1:]), dtype, bits)
                continue
            if decoded is None or decoded[0] != index // 3:
                image = self._decode(streams[index // 3], (shape[1], shape[2], 3), dtype, bits)
                decoded = index // 3, image
            yield index, decoded[1][..., index % 3]

    def _decode(self, stream: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], bits: int) -> Planes:
        _check_header(stream, shape[0], shape[1], bits)
        try:
            image: Planes = imagecodecs.jpegxl_decode(bytes(stream), numthreads=1)
        except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
            raise CodecError(self.name, str(error)) from error
        if image.shape != shape or image.dtype.kind != "u":
            raise CodecError(self.name, f"decoded to {image.shape} instead of {shape}")
        return image.astype(dtype, copy=False)


def _images(planes: Planes, grouping: int) -> list[Planes]:
    if grouping == _SINGLY:
        return list(planes)
    whole = len(planes) // 3
    triples = [np.moveaxis(planes[3 * index : 3 * index + 3], 0, 2) for index in range(whole)]
    return [*triples, *planes[3 * whole :]]
