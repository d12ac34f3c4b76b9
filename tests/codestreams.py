"""Codestreams as other programs write them, and files that hold them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt

from dicomfs.model import PixelLayout
from tests import samples

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
RLE = "1.2.840.10008.1.2.5"
Words = npt.NDArray[np.unsignedinteger]


def hint(image: Words, *, bits: int = 0) -> PixelLayout:
    """What the attributes of a file say of an image, (rows, columns) or with samples."""
    samples_ = image.shape[2] if image.ndim == 3 else 1
    allocated = 8 * image.itemsize
    stored = bits or allocated
    return PixelLayout(image.shape[0], image.shape[1], samples_, allocated, stored, stored - 1, signed=False)


def smooth(rows: int, columns: int, *, channels: int = 1, bits: int = 12, seed: int = 3) -> Words:
    """A smooth image with some noise."""
    rng = np.random.default_rng(seed)
    size = (rows, columns, channels) if channels > 1 else (rows, columns)
    steps = rng.integers(-9, 10, size).cumsum(axis=1) + (1 << (bits - 1))
    image: Words = np.clip(steps, 0, (1 << bits) - 1).astype(np.uint8 if bits <= 8 else np.uint16)
    return image


def jpeg_lossless(image: Words, *, predictor: int = 1) -> bytes:
    """Process 14, as libjpeg-turbo writes it."""
    space = "RGB" if image.ndim == 3 else None
    return bytes(
        imagecodecs.jpeg8_encode(
            image, lossless=True, predictor=predictor, colorspace=space, outcolorspace=space
        )
    )


def jpeg(image: Words, level: int = 90) -> bytes:
    """JPEG baseline."""
    return bytes(imagecodecs.jpeg8_encode(image, level=level))


def jpeg_ls_stream(image: Words, *, bits: int = 12, near: int = 0, way: int = 2) -> bytes:
    """JPEG-LS, as CharLS writes it."""
    channels = image.shape[2] if image.ndim == 3 else 1
    way = way if channels > 1 else 0
    return bytes(jpeg_ls.encode_buffer(image.tobytes(), *image.shape[:2], channels, bits, near, way))


def rle(image: Words, *, seed: int | None = None, pad: bytes = b"\0") -> bytes:
    """PS3.5 annex G, cut by plain rules or, with a seed, in whatever way."""
    pixels = image.reshape(-1, image.shape[2] if image.ndim == 3 else 1)
    planes = [
        np.ascontiguousarray(pixels[:, k]).view(np.uint8).reshape(-1, image.itemsize)[:, byte].tobytes()
        for k in range(pixels.shape[1])
        for byte in reversed(range(image.itemsize))
    ]
    chance = random.Random(seed) if seed is not None else None
    segments = [packbits(plane, image.shape[1], chance) for plane in planes]
    segments = [segment + pad * (len(segment) % 2) for segment in segments]
    places, at = [], 64
    for segment in segments:
        places.append(at)
        at += len(segment)
    header = struct.pack("<16I", len(segments), *places, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def packbits(plane: bytes, width: int, chance: random.Random | None = None) -> bytes:
    """Runs of three and more bytes within rows; with ``chance``, now and then a literal for no reason."""
    out = bytearray()
    for top in range(0, len(plane), width):
        row, literal, at = plane[top : top + width], bytearray(), 0
        while at < len(row):
            length = 1
            while at + length < len(row) and length < 128 and row[at + length] == row[at]:
                length += 1
            if length >= 3 and not (chance is not None and chance.random() < 0.02):
                out += _literals(literal) + bytes([257 - length, row[at]])
                literal = bytearray()
            else:
                length = min(length, 2)
                literal += row[at : at + length]
            at += length
        out += _literals(literal)
    return bytes(out)


def _literals(data: bytes | bytearray) -> bytes:
    return b"".join(
        bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128] for at in range(0, len(data), 128)
    )


def insert_comment(stream: bytes, text: bytes = b"written for Sample^Patient") -> bytes:
    """A comment segment behind the start of image."""
    return stream[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text + stream[2:]


def file_of(
    fragments: Sequence[bytes],
    image: Words,
    syntax: str,
    *,
    frames: int = 1,
    bits: int = 0,
    number: int = 1,
    modality: str = "CT",
    patient: str = "Sample^Patient",
    table: bytes = b"",
    suffix: bytes = b"",
) -> bytes:
    """A file whose pixel value is made of these fragments."""
    layout = hint(image, bits=bits)
    head = samples.identity(
        patient, number, series="coded", modality=modality, sop_class=samples.US_MULTIFRAME
    )
    head += samples.image(
        layout.rows, layout.columns, bits=layout.bits_allocated, samples=layout.samples, frames=frames
    )
    data_set = samples.write(head) + samples.LITTLE.fragments(fragments, table=table) + suffix
    return samples.part10(data_set, syntax, samples.US_MULTIFRAME, samples.uid(patient, "coded", number))
