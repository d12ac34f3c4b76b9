"""Codecs to compare: each turns the samples of some frames into bytes and back, on one processor.

Owns how each peer is called; what is compared and how it is measured is in ``codecs``.  Peers get what a
good DICOM toolkit would give them: unsigned samples from the smallest value on, with their true depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import zstandard

from dicomfs.codec.base import CodecId, FrameCodec, Settings
from dicomfs.codec.registry import codec
from dicomfs.codec.segment import band_cuts, band_of, decode_band, encode_band
from dicomfs.codec.trial import Trial
from dicomfs.model import PixelLayout

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Some neighbouring frames of a stack."""

    layout: PixelLayout
    raw: npt.NDArray[np.uint8]
    """(frames, frame bytes), as in the files."""
    planes: Array
    """(frames, rows, columns[, samples]), unsigned, from 0 on."""
    bits: int

    @classmethod
    def of(cls, raw: npt.NDArray[np.uint8], layout: PixelLayout) -> Sample:
        """The samples of raw frames of 8 or 16 bits."""
        kind = "i" if layout.signed else "u"
        order = ">" if layout.big_endian else "<"
        words = raw.view(np.dtype(f"{order}{kind}{layout.bits_allocated // 8}")).astype(np.int32)
        words -= words.min()
        shape: tuple[int, ...] = (len(raw), layout.rows, layout.columns)
        if layout.samples > 1:
            shape = (*shape, layout.samples)
        bits = max(1, int(words.max()).bit_length())
        planes = words.astype(np.uint8 if bits <= 8 else np.uint16).reshape(shape)
        return cls(layout, raw, np.ascontiguousarray(planes), bits)


@dataclass(frozen=True)
class Method:
    """One way of coding a sample; ``decode`` gives what ``encode`` was given: planes, or raw bytes."""

    name: str
    encode: Callable[[Sample], Sequence[bytes]]
    decode: Callable[[Sequence[bytes], Sample], Array]


class NotTakenHere(Exception):
    """The method does not take this kind of samples."""


def _still(name: str, encode: Callable[[Array, int], bytes], decode: Callable[[bytes], Array]) -> Method:
    """A codec of single images."""
    return Method(
        name,
        lambda sample: [bytes(encode(plane, sample.bits)) for plane in sample.planes],
        lambda coded, _: np.stack([decode(one) for one in coded]),
    )


def _jpegxl(effort: int) -> Method:
    def encode(plane: Array, _: int) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, numthreads=1))

    return _still(f"JPEG XL e{effort}", encode, partial(imagecodecs.jpegxl_decode, numthreads=1))


def _htj2k(plane: Array, _: int) -> bytes:
    return bytes(imagecodecs.htj2k_encode(plane, reversible=True, rgb=plane.ndim == 3))


def _through(name: str, coder: FrameCodec, settings: Settings) -> Method:
    """A codec of the product, without its bands and headers."""

    def encode(sample: Sample) -> list[bytes]:
        if not coder.supports(sample.planes, sample.bits):
            raise NotTakenHere(name)
        return [coder.encode(sample.planes, sample.bits, settings)]

    def decode(coded: Sequence[bytes], sample: Sample) -> Array:
        shape, wanted = sample.planes.shape, range(len(sample.planes))
        found = coder.decode(memoryview(coded[0]), shape, sample.planes.dtype, sample.bits, wanted)
        return np.stack([plane for _, plane in found])

    return Method(name, encode, decode)


def _zstd(level: int) -> Method:
    """Zstandard over the raw bytes, with a window as large as they are."""
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=27, enable_ldm=True)

    def encode(sample: Sample) -> list[bytes]:
        return [zstandard.ZstdCompressor(compression_params=parameters).compress(sample.raw.data)]

    def decode(coded: Sequence[bytes], sample: Sample) -> Array:
        data = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(coded[0])
        return np.frombuffer(data, np.uint8).reshape(sample.raw.shape)

    return Method(f"zstd -{level}", encode, decode)


PEERS: tuple[Method, ...] = (
    _jpegxl(7),
    _jpegxl(9),
    _through("JPEG-LS", codec(CodecId.JPEGLS), Settings()),
    _still("HTJ2K", _htj2k, imagecodecs.htj2k_decode),
    _zstd(19),
    _through("FFV1", codec(CodecId.FFV1), Settings(effort=7)),
    _through("x265 lossless", codec(CodecId.HEVC), Settings(effort=7)),
)
REFERENCE = "JPEG XL e9"


def own(name: str, chosen: CodecId, settings: Settings, segment_frames: int) -> Method:
    """A codec in segments and bands, with all that is stored of them but the index."""

    def encode(sample: Sample) -> list[bytes]:
        if chosen in (CodecId.FAST, CodecId.DENSE) and sample.layout.samples > 1:
            raise NotTakenHere(name)
        layout = sample.layout
        return [
            encode_band(band_of(raw, layout, first, rows), layout, rows, chosen, settings)
            for raw in _segments(sample, segment_frames)
            for first, rows in band_cuts(layout, len(raw), chosen)
        ]

    def decode(coded: Sequence[bytes], sample: Sample) -> Array:
        layout, payloads, out = sample.layout, iter(coded), []
        for raw in _segments(sample, segment_frames):
            bands = [
                decode_band(next(payloads), layout, rows, len(raw), chosen)
                for _, rows in band_cuts(layout, len(raw), chosen)
            ]
            out += [b"".join(band[frame] for band in bands) for frame in range(len(raw))]
        return np.frombuffer(b"".join(out), np.uint8).reshape(sample.raw.shape)

    return Method(name, encode, decode)


def choice_of(name: str, trial: Trial) -> Method:
    """What a trial chose."""
    return own(name, trial.codec, trial.settings, trial.segment_frames)


def _segments(sample: Sample, frames: int) -> list[npt.NDArray[np.uint8]]:
    return [sample.raw[first : first + frames] for first in range(0, len(sample.raw), frames)]
