"""JPEG lossless, process 14 of ITU-T T.81 annex H: Huffman coding, all seven predictors.

The codestream's own bytes up to each scan (tables, application segments, comments) and behind the last one
are kept in the recipe; the scans are made again from the samples with the tables found there.  Decoding is
libjpeg-turbo's, by imagecodecs; encoding is ours, so that reading an archive depends on no library's choices.

Recipe: parts are one byte for each scan (bytes to leave off at its end), then the literals.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.bitstream.base import Reading, put_parts, take_parts
from dicomfs.codec.bitstream.bits import pack_bits, stuff_zeros
from dicomfs.codec.bitstream.markers import Codestream, FrameHeader, ScanHeader, parse
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

try:
    import imagecodecs
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = "" if imagecodecs.JPEG8.available else "imagecodecs was built without libjpeg-turbo"

_NAME = "jpeg lossless"
_SOF3 = 0xFFC3
_MAX_CUT = 4
_Samples = npt.NDArray[np.int32]
_Table = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]


class JpegLossless:
    """Frames of one to four components, all of full size, in any number of scans."""

    def read(self, data: bytes, hint: PixelLayout) -> Reading:
        """See `FrameBitstream.read`."""
        found = parse(data)
        frame = _checked(found)
        samples = _decode(found)
        stored = min(frame.precision, 8 * samples.itemsize)
        same = hint.bits_allocated == 8 * samples.itemsize
        layout = PixelLayout(
            frame.rows,
            frame.columns,
            len(frame.components),
            8 * samples.itemsize,
            hint.bits_stored if same else stored,
            hint.high_bit if same else stored - 1,
            hint.signed and same,
        )
        scans = _scans(found, samples)
        cuts, literals = bytearray(), [found.literals[0]]
        for made, data_of_scan, literal in zip(scans, found.data, found.literals[1:], strict=True):
            cut = _cut(made, data_of_scan)
            cuts.append(cut)
            literals.append(data_of_scan[len(made) - cut :] + literal)
        return Reading(layout, samples.tobytes(), put_parts(0, [bytes(cuts), *literals]))

    def write(self, raw: bytes, layout: PixelLayout, recipe: bytes) -> bytes:
        """See `FrameBitstream.write`."""
        flags, parts = take_parts(_NAME, recipe, 6)
        if flags or len(parts) < 3 or len(parts[0]) != len(parts) - 2 or max(parts[0]) > _MAX_CUT:
            raise CodecError(_NAME, "the recipe is damaged")
        cuts, literals = parts[0], parts[1:]
        found = parse(_headers(literals, cuts), scan_data=False)
        frame = _checked(found)
        size = layout.rows, layout.columns, layout.samples
        if (frame.rows, frame.columns, len(frame.components)) != size or len(found.scans) != len(cuts):
            raise CodecError(_NAME, "the recipe is of another frame")
        samples = np.frombuffer(raw, f"<u{layout.bits_allocated // 8}").reshape(size)
        out = [literals[0]]
        for made, cut, literal in zip(_scans(found, samples), cuts, literals[1:], strict=True):
            out += [made[: len(made) - cut], literal]
        return b"".join(out)


def _headers(literals: list[bytes], cuts: bytes) -> bytes:
    """The literals without what belongs to the ends of scans: from their first marker on."""
    out = [literals[0]]
    for literal, cut in zip(literals[1:], cuts, strict=True):
        at = 0
        if cut:
            at = next((i for i in range(len(literal) - 1) if literal[i] == 0xFF and literal[i + 1] > 1), 0)
        out.append(literal[at:])
    return b"".join(out)


def _checked(found: Codestream) -> FrameHeader:
    frame = found.frame
    if frame.marker != _SOF3 or not 2 <= frame.precision <= 16 or len(frame.components) > 4:
        raise CodecError(_NAME, "not lossless by Huffman codes")
    coded = [index for scan in found.scans for index, _ in scan.components]
    if sorted(coded) != list(range(len(frame.components))):
        raise CodecError(_NAME, "its scans do not hold each component once")
    if any(component.sampling != frame.components[0].sampling for component in frame.components):
        raise CodecError(_NAME, "subsampled components")
    if len(frame.components) > 1 and frame.components[0].sampling != 0x11:
        raise CodecError(_NAME, "blocks of samples")
    for scan in found.scans:
        if not 1 <= scan.start <= 7 or scan.approximation >= frame.precision:
            raise CodecError(_NAME, "no predictor, or a point transform beyond the precision")
        if scan.restart % frame.columns:
            raise CodecError(_NAME, "restarts within a line")
    return frame


def _decode(found: Codestream) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Samples, (rows, columns, components)."""
    if _MISSING:
        raise CodecError(_NAME, _MISSING)
    frame = found.frame
    try:
        image = imagecodecs.jpeg8_decode(_plain(found))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise CodecError(_NAME, str(error)) from error
    size = frame.rows, frame.columns, len(frame.components)
    if image.dtype.kind != "u" or image.size != size[0] * size[1] * size[2]:
        raise CodecError(_NAME, f"decoded to {image.shape} instead of {size}")
    return np.ascontiguousarray(image.reshape(size)).astype(f"<u{image.itemsize}", copy=False)


def _plain(found: Codestream) -> bytes:
    """The codestream without what tells of colour, so that the decoder converts nothing."""
    frame = found.frame
    # Ids R, G and B say that the components are what they are; other numbers of them say nothing.
    ids = b"RGB" if len(frame.components) == 3 else bytes(range(1, 5))
    parts = [struct.pack(">HHHBHHB", 0xFFD8, _SOF3, 8 + 3 * len(frame.components), frame.precision,
                         frame.rows, frame.columns, len(frame.components))]  # fmt: skip
    parts += [bytes([ids[index], 0x11, 0]) for index in range(len(frame.components))]
    for scan, data in zip(found.scans, found.data, strict=True):
        for number, table in scan.tables.items():
            if number < 4:
                parts.append(struct.pack(">HHB", 0xFFC4, 3 + len(table), number) + table)
        parts.append(struct.pack(">HHH", 0xFFDD, 4, scan.restart))
        chosen = b"".join(bytes([ids[index], tables]) for index, tables in scan.components)
        parts.append(struct.pack(">HHB", 0xFFDA, 6 + len(chosen), len(scan.components)) + chosen)
        parts += [bytes([scan.start, 0, scan.approximation]), data]
    return b"".join([*parts, b"\xff\xd9"])


def _cut(made: bytes, wanted: bytes) -> int:
    """Bytes to leave off ``made`` so that it begins ``wanted``; raises `CodecError` where they are many."""
    for cut in range(min(_MAX_CUT, len(made)) + 1):
        if wanted.startswith(made[: len(made) - cut]) and len(wanted) - len(made) + cut <= 2 * _MAX_CUT:
            return cut
    raise CodecError(_NAME, "written by an encoder of another kind")


def _scans(found: Codestream, samples: npt.NDArray[np.unsignedinteger[Any]]) -> list[bytes]:
    return [_scan(found.frame, scan, samples) for scan in found.scans]


def _scan(frame: FrameHeader, scan: ScanHeader, samples: npt.NDArray[np.unsignedinteger[Any]]) -> bytes:
    """The entropy-coded data of one scan (H.1.2), restart markers included."""
    shift = scan.approximation & 0x0F
    lines = scan.restart // frame.columns or frame.rows
    tables = [_codes(scan.tables.get(chosen >> 4, b"")) for _, chosen in scan.components]
    parts = []
    for number, top in enumerate(range(0, frame.rows, lines)):
        codes, lengths = [], []
        for (index, _), (code, length) in zip(scan.components, tables, strict=True):
            values = samples[top : top + lines, :, index].astype(np.int32) >> shift
            steps = _differences(values, scan.start, frame.precision - shift)
            codes.append(code[steps].reshape(-1))
            lengths.append(length[steps].reshape(-1))
        joined = np.stack(codes, axis=1).reshape(-1) if len(codes) > 1 else codes[0]
        sizes = np.stack(lengths, axis=1).reshape(-1) if len(lengths) > 1 else lengths[0]
        if not sizes.all():
            raise CodecError(_NAME, "a difference without a code")
        if number:
            parts.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        parts.append(stuff_zeros(pack_bits(joined, sizes)))
    return b"".join(parts)


def _differences(values: _Samples, predictor: int, precision: int) -> npt.NDArray[np.uint16]:
    """Differences from the prediction modulo 2^16 (H.1.2.1 and table H.1)."""
    predicted = np.empty_like(values)
    predicted[0, 0] = 1 << (precision - 1)
    predicted[0, 1:] = values[0, :-1]
    predicted[1:, 0] = values[:-1, 0]
    left, above, corner = values[1:, :-1], values[:-1, 1:], values[:-1, :-1]
    inner = predicted[1:, 1:]
    if predictor == 1:
        inner[...] = left
    elif predictor == 2:
        inner[...] = above
    elif predictor == 3:
        inner[...] = corner
    elif predictor == 4:
        inner[...] = left + above - corner
    elif predictor == 5:
        inner[...] = left + ((above - corner) >> 1)
    elif predictor == 6:
        inner[...] = above + ((left - corner) >> 1)
    else:
        inner[...] = (left + above) >> 1
    return (values - predicted).astype(np.uint16)


@lru_cache(maxsize=64)
def _codes(table: bytes) -> _Table:
    """Code and length in bits of every difference modulo 2^16; length 0 where the table has none.

    Categories and their additional bits: H.1.2.2 and table H.2; codes from lengths: annex C.
    """
    prefixes, sizes = np.zeros(17, np.uint32), np.zeros(17, np.uint8)
    code, at = 0, 16
    for length in range(1, 17):
        for symbol in table[at : at + (table[length - 1] if len(table) > length - 1 else 0)]:
            if symbol <= 16 and not sizes[symbol]:
                prefixes[symbol], sizes[symbol] = code & 0xFFFF, length
            code += 1
            at += 1
        code <<= 1
    steps = np.arange(1 << 16, dtype=np.int64)
    steps[32769:] -= 1 << 16
    category = np.zeros(1 << 16, np.int64)
    for bits in range(17):
        category[np.abs(steps) >= 1 << bits] = bits + 1
    category[32768] = 16
    extra = np.where(category == 16, 0, category)
    low = np.where(steps < 0, steps - 1, steps) & ((1 << extra) - 1)
    lengths = np.where(sizes[category] > 0, sizes[category] + extra, 0)
    codes = (prefixes[category].astype(np.int64) << extra) | low
    return codes.astype(np.uint32), lengths.astype(np.uint8)
