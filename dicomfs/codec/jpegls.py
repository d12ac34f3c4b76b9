"""JPEG-LS (ITU-T T.87) with the true bit depth; the only module that imports its libraries.

Encoding goes through CharLS by ``jpeg_ls``, which can set the depth but holds the interpreter lock;
decoding through CharLS by ``imagecodecs``, which releases it.

Payload: one byte of colour transform (0 none, 1 differences from the second sample), the length of the
common stream header (one byte), that header (SOI up to SOS), then all streams without header and EOI,
framed by `join_streams`.  Each sample of a pixel is a stream of its own, in the order frame, sample.
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
    import jpeg_ls
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = "" if imagecodecs.JPEGLS.available else "imagecodecs was built without CharLS"

_EOI = b"\xff\xd9"
_SMALLEST = 64
"""Pixels below which the encoder's output buffer (twice the input) may not hold the stream header."""


def _header_length(stream: bytes) -> int:
    position = 2
    while position + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, position)
        position += 2 + int(length)
        if marker == 0xFFDA:
            return position
    raise CodecError("jpegls", "no start of scan")


def _check_header(header: bytes, rows: int, columns: int, bits: int) -> None:
    """Refuse a header that announces anything but one grey scan of the expected size.

    The decoder allocates what the header says, so this bounds memory for hostile payloads.
    """
    if header[:2] != b"\xff\xd8":
        raise CodecError("jpegls", "no start of image")
    position, seen = 2, []
    while position + 4 <= len(header):
        marker, length = struct.unpack_from(">HH", header, position)
        body = header[position + 4 : position + 2 + length]
        seen.append(marker)
        if marker == 0xFFF7 and body != struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0):
            raise CodecError("jpegls", "the stream is of another size or depth")
        if marker == 0xFFF8 and (body[:1] != b"\x01" or length != 13):
            raise CodecError("jpegls", "unexpected preset parameters")
        if marker == 0xFFDA and body != bytes([1, 1, 0, 0, 0, 0]):
            raise CodecError("jpegls", "not one lossless grey scan")
        position += 2 + length
    if position != len(header) or seen not in ([0xFFF7, 0xFFDA], [0xFFF7, 0xFFF8, 0xFFDA]):
        raise CodecError("jpegls", "the stream header is damaged")


def _subtract_second(planes: Planes, bits: int) -> Planes:
    """Replace samples 0 and 2 by their difference from sample 1, modulo the depth, centred."""
    mask, half = planes.dtype.type((1 << bits) - 1), planes.dtype.type(1 << (bits - 1))
    out = planes.copy()
    for index in (0, 2):
        out[..., index] = (planes[..., index] - planes[..., 1] + half) & mask
    return out


def _add_second(planes: Planes, bits: int) -> None:
    mask, half = planes.dtype.type((1 << bits) - 1), planes.dtype.type(1 << (bits - 1))
    for index in (0, 2):
        planes[..., index] = (planes[..., index] + planes[..., 1] - half) & mask


class JpegLs:
    """JPEG-LS, one stream per frame and sample."""

    name = "jpegls"
    id = CodecId.JPEGLS
    random_access = True

    def unavailable(self) -> str:
        """Return what is missing, or an empty string."""
        return _MISSING

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take up to 16 bits and images of 64 to 65535 x 65535 pixels."""
        rows, columns = planes.shape[1:3]
        return (
            1 <= bits <= planes.itemsize * 8 <= 16
            and max(rows, columns) <= 65535
            and rows * columns >= _SMALLEST
        )

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:  # noqa: ARG002 - one way only
        """Code every frame; ``settings`` make no difference.  Raises `CodecError`."""
        if not self.supports(planes, bits):
            raise CodecError(self.name, f"does not take frames of {planes.shape[1:]} with {bits} bits")
        if planes.ndim == 3 or planes.shape[3] != 3:
            return b"\0" + self._encode(planes, bits)
        middle = planes[len(planes) // 2 :][:1]
        plain, coloured = (
            len(self._encode(trial, bits)) for trial in (middle, _subtract_second(middle, bits))
        )
        if plain <= coloured:
            return b"\0" + self._encode(planes, bits)
        return b"\1" + self._encode(_subtract_second(planes, bits), bits)

    def _encode(self, planes: Planes, bits: int) -> bytes:
        rows, columns = planes.shape[1:3]
        images = planes if planes.ndim == 3 else np.moveaxis(planes, 3, 1).reshape(-1, rows, columns)
        if bits <= 8:
            images = images.astype(np.uint8, copy=False)
        header, scans = b"", []
        for image in images:
            try:
                stream = bytes(jpeg_ls.encode_buffer(image.tobytes(), rows, columns, 1, bits))
            except (RuntimeError, ValueError) as error:
                raise CodecError(self.name, str(error)) from error
            if not header:
                header = stream[: _header_length(stream)]
            if not (stream.startswith(header) and stream.endswith(_EOI)):
                raise CodecError(self.name, "the streams of a band do not share one header")
            scans.append(stream[len(header) : -2])
        return bytes([len(header)]) + header + join_streams(scans)

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decode the wanted frames; see `FrameCodec.decode`."""
        frames, rows, columns = shape[:3]
        samples = shape[3] if len(shape) > 3 else 1
        if len(payload) < 2 or payload[0] > 1 or (payload[0] and samples != 3):
            raise CodecError(self.name, "unknown colour transform")
        header = bytes(payload[2 : 2 + payload[1]])
        _check_header(header, rows, columns, max(2, bits))
        scans = split_streams(self.name, payload[2 + len(header) :], frames * samples)
        for index in sorted(wanted):
            images = [
                self._decode(header + scan + _EOI, (rows, columns), dtype)
                for scan in map(bytes, scans[index * samples : (index + 1) * samples])
            ]
            frame = images[0] if len(shape) == 3 else np.stack(images, axis=2)
            if payload[0]:
                _add_second(frame, bits)
            yield index, frame

    def _decode(self, stream: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> Planes:
        try:
            image: Planes = imagecodecs.jpegls_decode(stream)
        except (RuntimeError, ValueError, TypeError) as error:
            raise CodecError(self.name, str(error)) from error
        if image.shape != shape:
            raise CodecError(self.name, f"decoded to {image.shape} instead of {shape}")
        return image.astype(dtype, copy=False)
