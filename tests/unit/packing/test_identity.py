"""Identity stays apart: pixel packs hold samples and nothing that a file says of its patient."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.codec.base import FROM_DISK
from dicomfs.codec.segment import decode_band
from dicomfs.model import CodedPiece, FramePiece, ObjectKey, PackKind
from dicomfs.packs import PackSource
from tests import samples
from tests.archives import rows, write_sources
from tests.codestreams import (
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    file_of,
    insert_comment,
    jpeg,
    jpeg_lossless,
    jpeg_ls_stream,
    rle,
    smooth,
)
from tests.samples import PIXEL_DATA

NAME = b"Sample^Patient"
GREY, COLOUR = smooth(64, 64), smooth(64, 64, channels=3, bits=8)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def native(modality: str, *, sop_class: str = samples.CT_IMAGE, extra: bytes = b"", **more: int) -> bytes:
    """A file of plain frames that says whose it is behind them as well."""
    head = samples.identity(series=modality, modality=modality, sop_class=sop_class)
    colour = more.get("samples", 1) > 1
    raw = (COLOUR if colour else GREY).tobytes()
    head += samples.image(64, 64, bits=8 if colour else 16, **more)  # type: ignore[arg-type]
    data = samples.write([*head, (PIXEL_DATA, "OW", raw + NAME)]) + extra
    return samples.part10(data, instance=samples.uid("Sample^Patient", modality, 1))


def application(stream: bytes) -> bytes:
    """An application segment behind the start of image."""
    return stream[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(NAME)) + NAME + stream[2:]


SAFE = {
    "plain": native("CT"),
    "an element behind the pixels": native("MR", extra=samples.LITTLE.element(0x7FE10010, "LO", NAME)),
    "jpeg lossless": file_of(
        [application(insert_comment(jpeg_lossless(GREY), NAME))], GREY, JPEG_LOSSLESS, bits=12
    ),
    "jpeg-ls": file_of([insert_comment(jpeg_ls_stream(GREY), NAME)], GREY, JPEG_LS, bits=12),
    "rle": file_of([rle(GREY) + NAME], GREY, RLE),
}
"""Kinds whose samples are pixel class."""
BURNING = {
    "ultrasound": native("US"),
    "secondary capture": native("CT", sop_class=SECONDARY_CAPTURE),
    "other": native("OT"),
    "photograph": native("XC"),
    "endoscopy": native("ES"),
    "microscopy": native("SM"),
    "no modality": native(""),
    "colour": native("CT", samples=3),
    "ultrasound, jpeg lossless": file_of(
        [insert_comment(jpeg_lossless(GREY), NAME)], GREY, JPEG_LOSSLESS, bits=12, modality="US"
    ),
}
"""Kinds that may show names."""
WITHOUT_FRAMES = {
    "jpeg": file_of([insert_comment(jpeg(COLOUR), NAME)], COLOUR, samples.JPEG_BASELINE),
    "report": samples.structured_report(),
    "document": samples.part10(
        samples.write([*samples.identity(modality="DOC"), (0x00420011, "OB", b"%PDF " + NAME * 90_000)])
    ),
    "waveform": samples.part10(
        samples.write(samples.identity(modality="ECG"))
        + samples.LITTLE.sequence(0x54000100, [samples.LITTLE.element(0x54001010, "OW", NAME * 500)])
    ),
    "video": file_of([b"\0\0\1\xb3" + NAME * 300], COLOUR, "1.2.840.10008.1.2.4.100", modality="ES"),
}


def packed(folder: Path, file: bytes) -> Iterator[tuple[PackKind, bytes]]:
    """Every object of an archive of one file: its kind, its bytes and all that it decodes to."""
    with Archive.create(folder / "archive") as archive:
        archive.import_paths([write_sources(folder / "in", [file])])
        assert not archive.pack("fast").failed
        source = PackSource(archive.tier)
        for record in archive.catalog.objects():
            kind = PackKind[record.key.split("/", 1)[0].upper()]
            stored = archive.tier.get(record.key)
            if kind is PackKind.HEADER:
                found = [archive.catalog.part_of(row.id) for _, row in rows(archive)]
                plain = b"".join(source.header_bytes(record.key, one.part_index, one.row) for one in found)
            else:
                plain = b"".join(contents(source, record.key))
            yield kind, stored + plain


def contents(source: PackSource, key: ObjectKey) -> Iterator[bytes]:
    pack = source.pack(key)
    for stack in pack.stacks:
        for segment in stack.segments:
            for band in segment.bands:
                payload, codec = pack.read_band(band), FROM_DISK[segment.codec]
                yield from decode_band(payload, stack.layout, band.rows, segment.frames, codec).values()
    for number, stream in enumerate(pack.streams):
        yield pack.read_stream(number, 0, stream.length)


def kinds_of(folder: Path, file: bytes) -> dict[PackKind, bytes]:
    found: dict[PackKind, bytes] = {}
    for kind, data in packed(folder, file):
        found[kind] = found.get(kind, b"") + data
    named = {kind for kind, data in found.items() if NAME in data}
    assert named, "the name is nowhere: this test looks in the wrong places"
    assert all(kind.identity_class for kind in named)
    uids = [samples.uid("Sample^Patient").encode(), samples.uid("Sample^Patient", "coded", 1).encode()]
    assert not any(uid in found.get(PackKind.PIXEL, b"") for uid in uids)
    return found


@pytest.mark.parametrize("name", SAFE)
def test_samples_of_safe_kinds_lie_apart_from_all_that_names(name: str, tmp_path: Path) -> None:
    assert set(kinds_of(tmp_path, SAFE[name])) == {PackKind.PIXEL, PackKind.HEADER}


@pytest.mark.parametrize("name", BURNING)
def test_samples_that_may_show_names_are_identity_class(name: str, tmp_path: Path) -> None:
    assert set(kinds_of(tmp_path, BURNING[name])) == {PackKind.BURNED, PackKind.HEADER}


@pytest.mark.parametrize("name", WITHOUT_FRAMES)
def test_what_has_no_frames_is_identity_class(name: str, tmp_path: Path) -> None:
    assert PackKind.PIXEL not in kinds_of(tmp_path, WITHOUT_FRAMES[name])


def test_an_overlay_in_the_bits_of_samples_may_be_text(tmp_path: Path) -> None:
    head = samples.identity() + samples.image(64, 64, stored=12)
    words = GREY | (np.arange(64, dtype=np.uint16) % 2 << 15)
    overlay: list[samples.Attribute] = [(0x60000102, "US", 15), (PIXEL_DATA, "OW", words.tobytes())]
    file = samples.part10(samples.write([*head, *overlay]))
    assert set(kinds_of(tmp_path, file)) == {PackKind.BURNED, PackKind.HEADER}


def test_frames_of_one_class_never_refer_to_the_other(tmp_path: Path) -> None:
    files = [SAFE["plain"], BURNING["ultrasound"]]
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([write_sources(tmp_path / "in", files)])
        archive.pack("fast")
        source, found = PackSource(archive.tier), set()
        for _, row in rows(archive):
            place = archive.catalog.part_of(row.id)
            entry = source.part(place.header_key, place.part_index).entries[place.row]
            found |= {p.pack.split("/")[0] for p in entry.pieces if isinstance(p, FramePiece | CodedPiece)}
    assert found == {"pixel", "burned"}
