"""How a file splits: the layout of its native frames, and byte runs that make up the whole file.

Owns the split plan and the judgement whether samples may have names burned in.  Does not own the scan
(`part10`), nor any codec: the attributes are hints, a wrong one costs density and never a byte.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicomfs.dicom import values
from dicomfs.dicom.part10 import DEFLATED, Buffer, Element, Scan
from dicomfs.dicom.syntax import RLE_LOSSLESS
from dicomfs.dicom.tags import OVERLAY_BIT_POSITIONS, Tag
from dicomfs.model import PixelLayout

MAX_HEADER = 1 << 20
"""Header bytes of one file that are kept as header; what is beyond goes into streams."""
MAX_FRAME = 1 << 31
MAX_SAMPLES = 4
TINY_FRAME, MANY_TINY_FRAMES = 4096, 64
"""More frames than this that are smaller are not kept apart: each costs more than it could save."""
MAX_FRAMES = 1 << 16
"""Frames of one file that are kept apart; bounds what packing holds in memory for it."""

_PIXEL_CLASS_MODALITIES = frozenset(
    {"CR", "CT", "DX", "IO", "IVOCT", "MG", "MR", "NM", "OCT", "OPT", "PT", "PX", "RF", "RTDOSE", "RTIMAGE"}
    | {"SEG", "XA"}
)
START_OF_IMAGE = b"\xff\xd8"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SCREEN_WORDS = ("SCREEN", "REPORT", "DOSE_INFO", "PROTOCOL", "SECONDARY CAPTURE")


class RunKind(enum.IntEnum):
    """What a run of a file's bytes is."""

    HEADER = 1
    FRAMES = 2
    STREAM = 3
    CODED = 4
    """A codestream that a frame and a recipe make."""
    TRANSCODED = 5
    """A codestream that may be stored in another coding."""


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` bytes of the file from ``offset``."""

    kind: RunKind
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The runs of a file, in order, without gap or overlap: joined they are the file."""

    kind: str
    """``native`` (one run of frames), ``coded`` (codestreams that are taken apart), ``header`` (header bytes
    only) or ``opaque`` (the rest)."""
    reason: str
    """Why it is not native; '' where it is."""
    runs: tuple[Run, ...]
    layout: PixelLayout | None
    """Layout of the frames of a native file, or of those that codestreams hold."""
    frame_count: int


def split(data: Buffer, scan: Scan) -> SplitPlan:
    """Plan of the file in ``data``, as scanned by `part10.scan`; never raises.

    A run of frames is exactly ``frame_count * layout.frame_bytes`` long; bytes of the pixel value beyond
    whole frames belong to the header run that follows.
    """
    size = scan.size
    if len(data) != size:
        return SplitPlan("opaque", "the scan is of other bytes", _stream(0, len(data)), None, 0)
    native = native_layout(scan)
    if scan.pixel is not None and not isinstance(native, str):
        layout, count = native
        start = scan.pixel.value_offset
        runs = _around(RunKind.FRAMES, start, count * layout.frame_bytes, size)
        return SplitPlan("native", "", runs, layout, count)
    reason = native if isinstance(native, str) else ""
    if scan.pixel is not None and scan.pixel.length:
        runs = _around(RunKind.STREAM, scan.pixel.value_offset, scan.pixel.length, size)
        return SplitPlan("opaque", reason, runs, None, 0)
    if 0 < size <= MAX_HEADER and scan.is_dicom and scan.note != DEFLATED:
        return SplitPlan("header", reason, (Run(RunKind.HEADER, 0, size),), None, 0)
    return SplitPlan("opaque", reason, _stream(0, size), None, 0)


def _stream(offset: int, length: int) -> tuple[Run, ...]:
    return (Run(RunKind.STREAM, offset, length),) if length else ()


def _around(kind: RunKind, start: int, length: int, size: int) -> tuple[Run, ...]:
    """Header bytes, ``length`` bytes of ``kind`` from ``start``, header bytes; excess header as streams."""
    end = start + length
    before = min(start, MAX_HEADER)
    after = min(size - end, MAX_HEADER - before)
    runs = (
        Run(RunKind.HEADER, 0, before),
        Run(RunKind.STREAM, before, start - before),
        Run(kind, start, length),
        Run(RunKind.HEADER, end, after),
        Run(RunKind.STREAM, end + after, size - end - after),
    )
    return tuple(run for run in runs if run.length)


def native_layout(scan: Scan) -> tuple[PixelLayout, int] | str:
    """Layout and number of whole frames of a native pixel value, else the reason why there is none.

    Sources: PS3.3 C.7.6.3 (image pixel), C.7.6.24 and C.7.6.25 (float pixels), PS3.5 8.
    """
    pixel = scan.pixel
    if pixel is None:
        return scan.note or "no pixel value"
    if pixel.undefined or scan.fragments:
        return "encapsulated pixel value"
    layout = _layout(scan, pixel)
    if isinstance(layout, str):
        return layout
    declared = max(1, values.integer_string(scan, Tag.NUMBER_OF_FRAMES) or 1)
    if _by_plane(scan, pixel):
        declared *= values.unsigned(scan, Tag.SAMPLES_PER_PIXEL) or 1
    if _is_subsampled(scan) and pixel.length < declared * layout.frame_bytes:
        layout = _subsampled(layout)
    if not 0 < layout.frame_bytes < MAX_FRAME:
        return "frames of no or absurd size"
    count = min(declared, pixel.length // layout.frame_bytes)
    if not count:
        return "the pixel value is shorter than a frame"
    if count > (MANY_TINY_FRAMES if layout.frame_bytes < TINY_FRAME else MAX_FRAMES):
        return "too many frames, or too small ones, to be worth keeping apart"
    return layout, count


def codestream_groups(data: Buffer, scan: Scan) -> list[tuple[tuple[int, int], ...]]:
    """The fragments (offset, length) of each codestream of an encapsulated pixel value, in order.

    A fragment that begins with a start of image (PS3.5 A.4) opens a codestream; where only one frame is
    declared, all fragments are its.  What follows another rule gives codestreams that nothing reads.
    """
    if scan.pixel is None or not scan.fragments:
        return []
    fragments = scan.fragments[1:]
    if max(1, values.integer_string(scan, Tag.NUMBER_OF_FRAMES) or 1) == 1:
        return [fragments] if fragments else []
    groups: list[list[tuple[int, int]]] = []
    run_length = is_run_length(scan)
    for offset, length in fragments:
        if run_length or not groups or bytes(data[offset : offset + 2]) == START_OF_IMAGE:
            groups.append([])
        groups[-1].append((offset, length))
    return [tuple(group) for group in groups]


def is_run_length(scan: Scan) -> bool:
    """Whether the pixel value is coded by PS3.5 annex G."""
    return scan.syntax.uid == RLE_LOSSLESS


def codestream_hint(scan: Scan) -> PixelLayout:
    """What the attributes say of the frames of an encapsulated value: interleaved, as decoders give them.

    An attribute that is absent or absurd counts as 1 (rows, columns, samples) or 8 (bits).
    """
    rows, columns = values.unsigned(scan, Tag.ROWS) or 1, values.unsigned(scan, Tag.COLUMNS) or 1
    samples = values.unsigned(scan, Tag.SAMPLES_PER_PIXEL) or 1
    bits = values.unsigned(scan, Tag.BITS_ALLOCATED) or 8
    bits = bits if bits in {8, 16, 32} else 8
    stored = min(values.unsigned(scan, Tag.BITS_STORED) or bits, bits)
    signed = values.unsigned(scan, Tag.PIXEL_REPRESENTATION) == 1
    return PixelLayout(
        rows, columns, samples if samples <= MAX_SAMPLES else 1, bits, stored, stored - 1, signed
    )


def _layout(scan: Scan, pixel: Element) -> PixelLayout | str:
    rows, columns = values.unsigned(scan, Tag.ROWS) or 0, values.unsigned(scan, Tag.COLUMNS) or 0
    samples = values.unsigned(scan, Tag.SAMPLES_PER_PIXEL)
    samples = 1 if samples is None else samples
    if not 1 <= samples <= MAX_SAMPLES:
        return f"{samples} samples per pixel"
    if _by_plane(scan, pixel):
        samples = 1
    if pixel.tag != Tag.PIXEL_DATA:
        bits = 32 if pixel.tag == Tag.FLOAT_PIXEL_DATA else 64
        big = scan.syntax.big_endian
        return PixelLayout(rows, columns, samples, bits, bits, bits - 1, True, big_endian=big, is_float=True)
    bits = values.unsigned(scan, Tag.BITS_ALLOCATED) or 0
    if bits == 1:
        return _bits_as_bytes(rows, columns, samples)
    if bits not in {8, 16, 32, 64}:
        return f"{bits} bits allocated"
    stored = values.unsigned(scan, Tag.BITS_STORED) or bits
    stored = stored if stored <= bits else bits
    high = values.unsigned(scan, Tag.HIGH_BIT)
    high = high if high is not None and stored - 1 <= high < bits else stored - 1
    signed = values.unsigned(scan, Tag.PIXEL_REPRESENTATION) == 1
    big = scan.syntax.big_endian and bits > 8
    return PixelLayout(rows, columns, samples, bits, stored, high, signed, big_endian=big)


def _by_plane(scan: Scan, pixel: Element) -> bool:
    """Colour by plane: each plane is a frame, so that codecs see it beside the others and those before."""
    samples = values.unsigned(scan, Tag.SAMPLES_PER_PIXEL) or 1
    one_bit = pixel.tag == Tag.PIXEL_DATA and values.unsigned(scan, Tag.BITS_ALLOCATED) == 1
    return samples > 1 and not one_bit and values.unsigned(scan, Tag.PLANAR_CONFIGURATION) == 1


def _bits_as_bytes(rows: int, columns: int, samples: int) -> PixelLayout | str:
    """Single-bit frames as rows of bytes, where frames begin at whole bytes."""
    width = columns * samples
    if width % 8 == 0:
        return PixelLayout(rows, width // 8, 1, 8, 8, 7, signed=False)
    if rows * width % 8 == 0:
        return PixelLayout(1, rows * width // 8, 1, 8, 8, 7, signed=False)
    return "single-bit frames that do not end at a whole byte"


def _is_subsampled(scan: Scan) -> bool:
    return values.code(scan, Tag.PHOTOMETRIC_INTERPRETATION) in {"YBR_FULL_422", "YBR_PARTIAL_422"}


def _subsampled(layout: PixelLayout) -> PixelLayout:
    """Two pixels share their chrominance (PS3.3 C.7.6.3.1.2): Y Y Cb Cr is one group of four samples."""
    if layout.samples != 3 or layout.columns % 2:
        return layout
    return PixelLayout(
        layout.rows,
        layout.columns // 2,
        4,
        layout.bits_allocated,
        layout.bits_stored,
        layout.high_bit,
        layout.signed,
        big_endian=layout.big_endian,
    )


def burned_in(scan: Scan) -> bool:
    """Whether the samples may show names: identity class, kept apart from plain pixels.

    Only modalities that do not write on their images count as safe.  Secondary captures, screenshots, colour,
    overlays in the bits of samples, and whatever the file itself declares are not; nor is anything without a
    Modality.  Burned In Annotation is mostly absent, so its ``NO`` is never trusted.
    """
    if values.code(scan, Tag.MODALITY).upper() not in _PIXEL_CLASS_MODALITIES:
        return True
    if values.code(scan, Tag.BURNED_IN_ANNOTATION).upper() == "YES":
        return True
    uid = values.code(scan, Tag.SOP_CLASS_UID)
    if uid == _SECONDARY_CAPTURE or uid.startswith(_SECONDARY_CAPTURE + "."):
        return True
    if any(values.unsigned(scan, tag) for tag in OVERLAY_BIT_POSITIONS):
        # An overlay in unused bits of the samples: a bitmap, often of text.
        return True
    if values.code(scan, Tag.CONVERSION_TYPE) not in {"", "SYN", "DRW"}:
        return True
    kind = values.code(scan, Tag.IMAGE_TYPE).upper()
    colour = (values.unsigned(scan, Tag.SAMPLES_PER_PIXEL) or 1) > 1
    return colour or any(word in kind for word in _SCREEN_WORDS)
