"""Odd pixel layouts: packed as frames where they have any, and every byte back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.archive import Archive
from dicomfs.model import FramePiece, StreamPiece
from dicomfs.packs import PackSource
from tests import samples
from tests.archives import read_whole, rows, write_sources
from tests.samples import LITTLE, PIXEL_DATA, Attribute

SIDE, FRAMES = 64, 4
BODY = samples.volume(FRAMES, SIDE, SIDE, 5).astype(np.int64) + 1024
EIGHT = (BODY >> 4).astype(np.uint8)
RGB = np.stack([EIGHT, np.roll(EIGHT, 1, 2), EIGHT // 2], axis=3)
MASK = (BODY > 600).astype(np.uint8)
Array = npt.NDArray[np.generic]


def file_of(
    value: Array | bytes,
    *,
    modality: str = "CT",
    extra: list[Attribute] | None = None,
    tag: int = PIXEL_DATA,
    vr: str = "OW",
    behind: bytes = b"",
    side: int = SIDE,
    **image: int,
) -> bytes:
    raw = value if isinstance(value, bytes) else value.tobytes()
    head = samples.identity(modality=modality) + samples.image(side, side, **image)  # type: ignore[arg-type]
    data = samples.write([*head, *(extra or [])]) + LITTLE.element(tag, vr, raw) + behind
    return samples.part10(data, instance=samples.uid("Sample^Patient", "s", 1))


def palette() -> list[Attribute]:
    table = np.arange(256, dtype="<u2").tobytes()
    described: list[Attribute] = [(0x00281101 + k, "US", [256, 0, 16]) for k in range(3)]
    return [*described, *((0x00281201 + k, "OW", table) for k in range(3))]


def overlaid() -> Array:
    """Twelve bits of image, an overlay in the highest bit."""
    return (BODY | MASK.astype(np.int64) << 15).astype("<u2")


FRAMED = {
    "one bit": file_of(np.packbits(MASK, bitorder="little"), modality="SEG", bits=1, frames=FRAMES),
    "ten bits in sixteen": file_of((BODY >> 2).astype("<u2"), stored=10, frames=FRAMES),
    "an overlay in the high bits": file_of(
        overlaid(), stored=12, frames=FRAMES, extra=[(0x60000102, "US", 15), (0x60000100, "US", 16)]
    ),
    "32 bits": file_of((BODY * 70_001).astype("<u4"), modality="RTDOSE", bits=32, frames=FRAMES),
    "32 bits signed": file_of((-BODY * 70_001).astype("<i4"), bits=32, signed=1, frames=FRAMES),
    "64 bits": file_of(BODY.astype("<u8"), bits=64, frames=FRAMES),
    "float": file_of(BODY.astype("<f4"), tag=0x7FE00008, vr="OF", bits=32, frames=FRAMES),
    "double": file_of(BODY.astype("<f8"), tag=0x7FE00009, vr="OD", bits=64, frames=FRAMES),
    "palette": file_of(EIGHT, modality="US", bits=8, frames=FRAMES, extra=palette()),
    "colour by pixel": file_of(RGB, modality="US", bits=8, samples=3, frames=FRAMES),
    "colour by plane": file_of(
        np.ascontiguousarray(np.moveaxis(RGB, 3, 1)),
        modality="US",
        bits=8,
        samples=3,
        planar=1,
        frames=FRAMES,
    ),
    "subsampled colour": file_of(
        RGB[..., :2],
        modality="US",
        bits=8,
        samples=3,
        frames=FRAMES,
        extra=[(0x00280004, "CS", "YBR_FULL_422")],
    ),
    "16 bits in colour": file_of(RGB.astype("<u2") * 16, modality="US", samples=3, stored=12, frames=FRAMES),
    "per-frame functional groups": samples.enhanced_mr(8, SIDE, SIDE),
    "two pixel values": file_of(
        BODY.astype("<u2"), stored=12, frames=FRAMES, behind=LITTLE.element(0x7FE10010, "OW", EIGHT.tobytes())
    ),
}
UNFRAMED = {
    "bits across bytes": file_of(bytes(2 * FRAMES), bits=1, side=3, frames=FRAMES),
    "waveform": samples.part10(
        samples.write(samples.identity(modality="ECG"))
        + LITTLE.sequence(0x54000100, [LITTLE.element(0x54001010, "OW", BODY[0].astype("<u2").tobytes())])
    ),
    "encapsulated document": samples.part10(
        samples.write([*samples.identity(modality="DOC"), (0x00420011, "OB", b"%PDF-1.4 " + bytes(5000))])
    ),
}


def packed(folder: Path, file: bytes) -> tuple[bytes, set[type], float]:
    """What comes back, the kinds of its pieces, and the share of the raw bytes that its packs take."""
    with Archive.create(folder / "archive") as archive:
        archive.import_paths([write_sources(folder / "in", [file])])
        assert not archive.pack("dense").failed
        [(_, row)] = rows(archive)
        place = archive.catalog.part_of(row.id)
        pieces = PackSource(archive.tier).part(place.header_key, place.part_index).entries[place.row].pieces
        stored = sum(one.size for one in archive.catalog.objects() if not one.key.startswith("header/"))
        return read_whole(archive, row.id), {type(piece) for piece in pieces}, stored / len(file)


@pytest.mark.parametrize("name", FRAMED)
def test_frames_of_any_layout_are_packed_as_frames_and_come_back(name: str, tmp_path: Path) -> None:
    found, kinds, share = packed(tmp_path, FRAMED[name])
    assert found == FRAMED[name]
    assert FramePiece in kinds
    assert share < 0.8


@pytest.mark.parametrize("name", UNFRAMED)
def test_what_has_no_frames_comes_back(name: str, tmp_path: Path) -> None:
    found, kinds, _ = packed(tmp_path, UNFRAMED[name])
    assert found == UNFRAMED[name]
    assert FramePiece not in kinds
    assert (StreamPiece in kinds) == (name == "bits across bytes")


def test_colour_by_plane_takes_about_what_colour_by_pixel_takes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    by_pixel, by_plane = (
        packed(tmp_path / folder, FRAMED[name])[2]
        for folder, name in (("a", "colour by pixel"), ("b", "colour by plane"))
    )
    assert by_plane < 1.25 * by_pixel
