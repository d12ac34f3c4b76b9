"""Small packs and journal objects that several test modules build: deterministic, without real data."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import random
from dataclasses import dataclass

import numpy as np

from dicomfs.format.digest import digest64
from dicomfs.format.header import HeaderPackWriter, InstanceEntry, SeriesPart, needed_features
from dicomfs.format.journal import (
    CountersReserved,
    HoldsReleased,
    HoldsSet,
    InstancesForgotten,
    JournalEntry,
    NodesMade,
    ObjectsTainted,
    PinsChanged,
    VersionDecision,
    VersionsDecided,
    encode_journal,
)
from dicomfs.format.keys import pack_key
from dicomfs.format.pack import PackWriter
from dicomfs.format.pack_notes import Decision, Packing, StoodFor
from dicomfs.format.shared_texts import FEATURE as TEXTS
from dicomfs.format.shared_texts import SharedText, TextRef, pieces
from dicomfs.format.text_pack import write_text
from dicomfs.model import (
    INSTANCE_LEVEL,
    CodedPiece,
    ConflictClass,
    FramePiece,
    HeaderPiece,
    InstanceId,
    Level,
    PackKind,
    PatientNode,
    PixelLayout,
    SeriesNode,
    StreamPiece,
    StudyNode,
    Subject,
    TranscodedPiece,
)
from tests import samples

ARCHIVE_ID = bytes(range(16))
LAYOUT = PixelLayout(6, 5, 1, 16, 12, 11, signed=True)
RAW = 0
"""Codec id of bytes as they are: band payloads are opaque to format/."""


class CountingReader:
    """``read`` of a byte string; notes the ranges asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class PixelSample:
    """A pack and the frames that it holds, by stack."""

    pack: bytes
    frames: list[list[bytes]]


def segment_of(
    layout: PixelLayout, frames: list[bytes], band_rows: list[int]
) -> tuple[list[tuple[int, int, bytes]], np.ndarray]:
    """Bands with raw payloads, and digests, of some frames."""
    bands, digests, first = [], np.zeros((len(frames), len(band_rows)), np.uint64), 0
    for number, rows in enumerate(band_rows):
        cut = slice(first * layout.row_bytes, (first + rows) * layout.row_bytes)
        bands.append((first, rows, b"".join(frame[cut] for frame in frames)))
        digests[:, number] = [digest64(frame[cut]) for frame in frames]
        first += rows
    return bands, digests


def pixel_sample(kind: PackKind = PackKind.PIXEL) -> PixelSample:
    """Two stacks: seven frames in two segments of two bands, written last first; and one frame."""
    random_bytes = random.Random(7).randbytes
    frames = [[random_bytes(LAYOUT.frame_bytes) for _ in range(7)], [random_bytes(LAYOUT.frame_bytes)]]
    file = io.BytesIO()
    writer = PackWriter(file, kind, ARCHIVE_ID)
    for in_stack in frames:
        writer.add_stack(LAYOUT, len(in_stack))
    for stack, first, count, band_rows in ((0, 4, 3, [4, 2]), (1, 0, 1, [6]), (0, 0, 4, [4, 2])):
        bands, digests = segment_of(LAYOUT, frames[stack][first : first + count], band_rows)
        writer.add_segment(stack, first, count, RAW, 3, bands, digests)
    writer.finish()
    return PixelSample(file.getvalue(), frames)


def noted_sample() -> tuple[PixelSample, Packing]:
    """The first stack of `pixel_sample` in one segment, with all that a writer may note."""
    frames = pixel_sample().frames[0]
    stands_for = [
        StoodFor.of(pack_key(PackKind.PIXEL, f"{number:02x}" * 32), (1 << 63) + number) for number in (3, 7)
    ]
    decision = Decision(1, ((RAW, 0, 420, 420), (1, 0, 420, 300), (300, 1, 60, 17)), (1, 12), 350)
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.PIXEL, ARCHIVE_ID, profile="dense", stands_for=stands_for)
    bands, digests = segment_of(LAYOUT, frames, [2, 4])
    writer.add_segment(writer.add_stack(LAYOUT, 7, decision), 0, 7, RAW, 9, bands, digests)
    bands, digests = segment_of(LAYOUT, frames[:1], [6])
    writer.add_segment(writer.add_stack(LAYOUT, 1), 0, 1, RAW, 9, bands, digests)
    writer.finish()
    return PixelSample(file.getvalue(), [frames, frames[:1]]), Packing(2, (decision, None), tuple(stands_for))


def opaque_sample(chunk: int = 100) -> tuple[bytes, list[bytes]]:
    """A pack of three interleaved streams (one that compresses, one that does not, an empty one)."""
    streams = [b"compressible " * 30, random.Random(8).randbytes(250), b""]
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.OPAQUE, ARCHIVE_ID)
    numbers = [writer.add_stream(len(stream)) for stream in streams]
    for offset in range(0, max(map(len, streams)), chunk):
        for number, stream in zip(numbers, streams, strict=True):
            if offset < len(stream):
                writer.add_chunk(number, offset, stream[offset : offset + chunk])
    writer.finish()
    return file.getvalue(), streams


def series_part(series: int, rows: int, header_bytes: int, repeat: int = 1) -> tuple[SeriesPart, list[bytes]]:
    """A part with pieces of all kinds and its header bytes."""
    source = random.Random(series)
    pixel, opaque = (pack_key(kind, "ab" * 32) for kind in (PackKind.PIXEL, PackKind.OPAQUE))
    common = source.randbytes(header_bytes) * repeat
    entries, headers = [], []
    for row in range(rows):
        uid = f"1.2.826.0.1.{series}.{row * 37}"
        named = f" {uid}".encode() if row % 5 != 4 else b""
        header = f"{series:05d}{row:05d}".encode() + named + common
        split = (HeaderPiece(len(header) - 3), FramePiece(pixel, 0, row, 1, -1), HeaderPiece(3))
        whole = (HeaderPiece(len(header)), StreamPiece(opaque, 1, 7 * row, 7))
        entries.append(
            InstanceEntry(
                position=row,
                name_level=row % 2,
                instance_number=None if row % 3 == 2 else row - 1,
                sop_instance_uid=uid,
                size=len(header) + 60,
                mtime_ns=1_600_000_000_123_456_789 + row * 1_000_003,
                sha256=hashlib.sha256(header).digest(),
                order=rows - 1 - row,
                pieces=whole if row % 4 == 3 else split,
                note="no pixel data" if row % 4 == 3 else "",
            )
        )
        headers.append(header)
    part = SeriesPart(
        PatientNode(1, "issuer", "id", "Doe^Jané", "id Doe 01234567"),
        StudyNode(2, 1, "1.2.3", "20200131", "", "20200131 01234567"),
        SeriesNode(series, 2, "1.2.3.4", "CT", "4", "axial", "4 axial 01234567"),
        0,
        {"patient": 64, "study": 64, "series": 128},
        entries,
        {
            piece.pack: 1 << 63
            for entry in entries
            for piece in entry.pieces
            if not isinstance(piece, HeaderPiece)
        },
    )
    return part, headers


@functools.cache
def header_sample(*shapes: tuple[int, ...]) -> tuple[bytes, list[tuple[SeriesPart, list[bytes]]]]:
    """A header pack of one part for each (rows, header bytes[, how often these are repeated])."""
    parts = [series_part(number, *shape) for number, shape in enumerate(shapes)]
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID)
    for part, headers in parts:
        writer.add_part(part, headers)
    writer.finish()
    return file.getvalue(), parts


def dicom_header_sample() -> bytes:
    """A header pack with headers of DICOM files: a series in several blocks, small ones, nested sequences."""
    kinds = [
        [data[:-128] for data in samples.ct_series(300, 8, 8, 5)],
        [samples.enhanced_mr(3 + number, 4, 4)[:4000] for number in range(4)],
        [samples.structured_report()],
        [data[:-128] for data in samples.ct_series(2, 8, 8, 6, syntax=samples.BIG_ENDIAN)],
    ]
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID)
    for series, headers in enumerate(kinds):
        part, _ = series_part(series, len(headers), 0)
        entries = [
            dataclasses.replace(entry, pieces=(HeaderPiece(len(header)),), size=len(header))
            for entry, header in zip(part.entries, headers, strict=True)
        ]
        writer.add_part(dataclasses.replace(part, entries=entries, packs={}), headers)
    writer.finish()
    return file.getvalue()


def codestream_part(rows: int = 4) -> tuple[SeriesPart, list[bytes]]:
    """A part whose files are made of codestreams, with their recipes behind the header bytes."""
    part, headers = series_part(7, rows, 60)
    pixel, opaque = (pack_key(kind, "cd" * 32) for kind in (PackKind.PIXEL, PackKind.OPAQUE))
    entries, blocks = [], []
    for row, (entry, header) in enumerate(zip(part.entries, headers, strict=True)):
        recipes = [random.Random(row).randbytes(20 + row), b"recipe two"]
        pieces = (
            HeaderPiece(len(header) - 8),
            CodedPiece(pixel, 3, row, 1 + row % 3, len(recipes[0]), 5000 + row, (1 << 64) - 1 - row),
            HeaderPiece(8),
            TranscodedPiece(opaque, row, 7 * row, 900, 16, len(recipes[1]), 1200, 1 << row),
        )
        size = len(header) + 6200 + row
        entries.append(dataclasses.replace(entry, pieces=pieces, size=size, note=""))
        blocks.append(header + b"".join(recipes))
    packs = {pixel: 1 << 63, opaque: 5}
    return dataclasses.replace(part, entries=entries, packs=packs), blocks


def codestream_sample() -> bytes:
    """A header pack with the part of `codestream_part`."""
    part, headers = codestream_part()
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID, needed_features([part]))
    writer.add_part(part, headers)
    writer.finish()
    return file.getvalue()


def journal_entries() -> tuple[JournalEntry, ...]:
    """One entry of each kind."""
    part, _ = series_part(3, 1, 0)
    return (
        CountersReserved(64, 128, 192),
        NodesMade((part.patient,), (part.study,), (part.series,)),
        VersionsDecided((VersionDecision(InstanceId(3, 9), InstanceId(4, 1), 2, ConflictClass.PIXELS),)),
        PinsChanged((3, 9), (4,)),
        InstancesForgotten((InstanceId(3, 9), InstanceId(3, 2), InstanceId(5, 0)), "asked for"),
        ObjectsTainted((pack_key(PackKind.PIXEL, "a5" * 32), pack_key(PackKind.TEXT, "07" * 32))),
        HoldsSet((Subject(Level.PATIENT, 1), Subject(INSTANCE_LEVEL, 3, 7)), "trial"),
        HoldsReleased((Subject(Level.PATIENT, 1),), "trial over"),
    )


def journal_sample() -> bytes:
    """A journal object with one entry of each kind."""
    return encode_journal(journal_entries(), 2**63 + 5, ARCHIVE_ID, 1_600_000_000_000_000_000, "1.0")


def shared_text_sample() -> tuple[bytes, bytes, SharedText]:
    """A text pack, and a header pack with a block that needs it."""
    text = b"".join(pieces(samples.protocol("shared", 500)))
    file = io.BytesIO()
    summary = write_text(file, ARCHIVE_ID, text)
    shared = SharedText(TextRef(summary.key, summary.index_digest), text)
    headers = [
        data[:-512] for data in samples.long_headers("Text^Patient", samples.protocol("shared", 520), 3)
    ]
    part, _ = series_part(2, len(headers), 0)
    entries = [
        dataclasses.replace(entry, pieces=(HeaderPiece(len(header)),), size=len(header))
        for entry, header in zip(part.entries, headers, strict=True)
    ]
    packed = io.BytesIO()
    writer = HeaderPackWriter(packed, ARCHIVE_ID, (TEXTS,), lambda *_: shared)
    writer.add_part(dataclasses.replace(part, entries=entries, packs={}), headers)
    writer.finish()
    return file.getvalue(), packed.getvalue(), shared
