"""JPEG-LS, lossless (ITU-T T.87).

Coding is fixed by the standard once its parameters are given, and those are in the codestream's own headers,
which the recipe keeps; the scans are made again by CharLS.  What it is not told (other thresholds than the
default ones, restart intervals, colour transforms) has no reading.  Nor have near-lossless streams: what they
decode to takes more room, coded without loss, than they do.

Recipe: the literals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.bitstream.base import Reading, put_parts, take_parts
from dicomfs.codec.bitstream.markers import FrameHeader, ScanHeader, parse
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

try:
    import imagecodecs
    import jpeg_ls
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = "" if imagecodecs.JPEGLS.available else "imagecodecs was built without CharLS"

_NAME = "jpeg-ls stream"
_SOF55 = 0xFFF7
_Samples = npt.NDArray[np.unsignedinteger[Any]]


class JpegLsStream:
    """Frames of one component, or of up to four by line, by pixel or by plane."""

    def read(self, data: bytes, hint: PixelLayout) -> Reading:
        """See `FrameBitstream.read`."""
        found = parse(data)
        frame = found.frame
        _check(frame, found.scans)
        size = frame.rows, frame.columns, len(frame.components)
        try:
            image = imagecodecs.jpegls_decode(data)
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise CodecError(_NAME, str(error)) from error
        if image.dtype.kind != "u" or image.size != size[0] * size[1] * size[2]:
            raise CodecError(_NAME, f"decoded to {image.shape} instead of {size}")
        samples = np.ascontiguousarray(image.reshape(size))
        bits = 8 * samples.itemsize
        same = hint.bits_allocated == bits
        layout = PixelLayout(
            *size,
            bits,
            hint.bits_stored if same else frame.precision,
            hint.high_bit if same else frame.precision - 1,
            hint.signed and same,
        )
        return Reading(layout, samples.tobytes(), put_parts(0, found.literals))

    def write(self, raw: bytes, layout: PixelLayout, recipe: bytes) -> bytes:
        """See `FrameBitstream.write`."""
        flags, literals = take_parts(_NAME, recipe, 5)
        if flags or len(literals) < 2:
            raise CodecError(_NAME, "the recipe is damaged")
        found = parse(b"".join(literals), scan_data=False)
        _check(found.frame, found.scans)
        frame = found.frame
        size = frame.rows, frame.columns, len(frame.components)
        if size != (layout.rows, layout.columns, layout.samples) or len(found.scans) != len(literals) - 1:
            raise CodecError(_NAME, "the recipe is of another frame")
        if layout.bits_allocated != (8 if frame.precision <= 8 else 16):
            raise CodecError(_NAME, "the recipe is of another depth")
        samples = np.frombuffer(raw, f"<u{layout.bits_allocated // 8}").reshape(size)
        out = [literals[0]]
        for scan, literal in zip(found.scans, literals[1:], strict=True):
            out += [_scan(frame, scan, samples), literal]
        return b"".join(out)


def _check(frame: FrameHeader, scans: list[ScanHeader]) -> None:
    if _MISSING:
        raise CodecError(_NAME, _MISSING)
    if frame.marker != _SOF55 or not 2 <= frame.precision <= 16 or len(frame.components) > 4:
        raise CodecError(_NAME, "no frame of JPEG-LS")
    if any(component.sampling != 0x11 for component in frame.components):
        raise CodecError(_NAME, "subsampled components")
    if sorted(index for scan in scans for index, _ in scan.components) != list(range(len(frame.components))):
        raise CodecError(_NAME, "its scans do not hold each component once")
    for scan in scans:
        # For an interleave mode the library wants all components in one scan, in order.
        whole = [index for index, _ in scan.components] == list(range(len(frame.components)))
        single = len(scan.components) == 1 and scan.end == 0
        if not single and not (whole and scan.end in (1, 2)):
            raise CodecError(_NAME, "an unusual way of interleaving")
        if scan.start or scan.approximation or scan.restart:
            raise CodecError(_NAME, "near-lossless, a point transform, or restarts")


def _scan(frame: FrameHeader, scan: ScanHeader, samples: _Samples) -> bytes:
    if scan.end == 0:
        samples = samples[:, :, scan.components[0][0]]
    try:
        stream = jpeg_ls.encode_buffer(
            samples.tobytes(),
            frame.rows,
            frame.columns,
            len(scan.components),
            frame.precision,
            0,
            scan.end,
        )
        return parse(bytes(stream)).data[0]
    except (RuntimeError, ValueError) as error:
        raise CodecError(_NAME, str(error)) from error
