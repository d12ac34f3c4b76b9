"""Files with compressed frames: what they become, and that they come back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.dicom.part10 import scan
from dicomfs.dicom.pixels import split
from dicomfs.model import CodedPiece, FramePiece, HeaderPiece, Piece, StreamPiece, TranscodedPiece
from dicomfs.packing import coded
from dicomfs.packing.coded import take_apart
from dicomfs.packs import PackSource
from dicomfs.recovery import recover
from tests import samples
from tests.archives import read_whole, rows, write_sources
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

SLICES = [smooth(64, 64, seed=seed) for seed in range(4)]
COLOUR = [smooth(96, 96, channels=3, bits=8, seed=seed) for seed in range(5)]
NAME = b"written for Sample^Patient"


def lossless_series(count: int = 4) -> list[bytes]:
    streams = [insert_comment(jpeg_lossless(image, predictor=1 + n), NAME) for n, image in enumerate(SLICES)]
    return [
        file_of([stream + b"\0" * (len(stream) % 2)], image, JPEG_LOSSLESS, number=number + 1)
        for number, (stream, image) in enumerate(zip(streams, SLICES, strict=True))
    ][:count]


def cine(frames: Sequence[bytes], **options: object) -> bytes:
    return file_of(frames, COLOUR[0], samples.JPEG_BASELINE, frames=len(frames), modality="US", **options)  # type: ignore[arg-type]


def pieces_of(archive: Archive) -> list[tuple[Piece, ...]]:
    source, found = PackSource(archive.tier), []
    for _, row in rows(archive):
        place = archive.catalog.part_of(row.id)
        found.append(source.part(place.header_key, place.part_index).entries[place.row].pieces)
    return found


def packed(tmp_path: Path, files: list[bytes]) -> list[tuple[Piece, ...]]:
    """Pack files, verify, recover, verify; the pieces of each, in the order of the tree."""
    source = write_sources(tmp_path / "in", files)
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([source])
        report = archive.pack("dense")
        assert not report.failed
        assert not archive.verify(deep=True).problems
        found = pieces_of(archive)
        assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(files)
    recover(tmp_path / "again", f"file://{tmp_path / 'archive' / 'local'}")
    with Archive.open(tmp_path / "again") as again:
        assert not again.verify(deep=True).problems
    return found


def test_a_series_of_jpeg_lossless_shares_a_stack(tmp_path: Path) -> None:
    found = packed(tmp_path, lossless_series())
    coded = [piece for pieces in found for piece in pieces if isinstance(piece, CodedPiece)]
    assert [[type(piece) for piece in pieces] for pieces in found] == [
        [HeaderPiece, CodedPiece, HeaderPiece]
    ] * 4
    assert len({(piece.pack, piece.stack) for piece in coded}) == 1
    assert sorted(piece.frame for piece in coded) == [0, 1, 2, 3]
    objects = [
        path.read_bytes() for path in (tmp_path / "archive" / "local" / "pixel").rglob("*") if path.is_file()
    ]
    assert objects, "CT frames are pixel class"
    assert not any(NAME in data for data in objects), "a comment went into a pixel pack"


def test_compressed_and_plain_frames_of_one_layout_share_a_stack(tmp_path: Path) -> None:
    head = samples.identity("Sample^Patient", 9, series="coded", sop_class=samples.US_MULTIFRAME)
    head += samples.image(64, 64, frames=1)
    plain = samples.write([*head, (samples.PIXEL_DATA, "OW", SLICES[0].tobytes())])
    instance = samples.uid("Sample^Patient", "coded", 9)
    files = [*lossless_series(2), samples.part10(plain, sop_class=samples.US_MULTIFRAME, instance=instance)]
    found = packed(tmp_path, files)
    of_frames = [piece for pieces in found for piece in pieces if isinstance(piece, CodedPiece | FramePiece)]
    assert len({(piece.pack, piece.stack) for piece in of_frames}) == 1


def test_frames_in_several_fragments_and_other_methods_come_back(tmp_path: Path) -> None:
    stream = jpeg_ls_stream(SLICES[1])
    stream += b"\0" * (len(stream) % 2)
    cut = [stream[at : at + 700] for at in range(0, len(stream), 700)]
    runs = [np.repeat(np.repeat(image[:16, :16], 8, axis=0), 8, axis=1) for image in SLICES]
    files = [
        file_of(cut, SLICES[1], JPEG_LS, number=1, table=b"\0\0\0\0"),
        file_of(
            [rle(image) for image in runs],
            runs[0],
            RLE,
            frames=4,
            number=2,
            suffix=samples.LITTLE.element(0xFFFCFFFC, "OB", b"padding."),
        ),
    ]
    found = packed(tmp_path, files)
    assert [type(piece) for piece in found[0]] == [HeaderPiece, CodedPiece, HeaderPiece]
    assert [type(piece) for piece in found[1]] == [HeaderPiece, *[CodedPiece, HeaderPiece] * 4]


def test_jpeg_is_transcoded_frame_by_frame_and_read_in_ranges(tmp_path: Path) -> None:
    frames = [jpeg(image) + b"\0" * (len(jpeg(image)) % 2) for image in COLOUR]
    data = cine(frames)
    found = packed(tmp_path, [data])
    assert [type(piece) for piece in found[0]] == [HeaderPiece, *[TranscodedPiece, HeaderPiece] * 5]
    with Archive.open(tmp_path / "archive") as archive:
        ((_, row),) = rows(archive)
        reader = archive.reconstructor.open(row.id)
        source = random.Random(4)
        for _ in range(60):
            at, length = source.randrange(len(data)), source.choice((1, 9, 300, 5000))
            assert reader.read(at, length) == data[at : at + length]
            assert reader.read_ready(at, length) in {None, data[at : at + length]}
        assert reader.read_ready(0, len(data)) == data
        assert reader.info()["codec"] == "transcoded"
        reader.close()


def test_what_cannot_be_transcoded_is_stored_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, 3000).astype(np.uint8).tobytes()
    frames = [noise, noise, jpeg(COLOUR[0]) + b"\0" * (len(jpeg(COLOUR[0])) % 2)]
    found = packed(tmp_path, [cine(frames)])
    kinds = [type(piece) for piece in found[0]]
    assert kinds == [HeaderPiece, StreamPiece, HeaderPiece, TranscodedPiece, HeaderPiece]


def test_frames_of_other_sizes_than_the_first_stay_streams(tmp_path: Path) -> None:
    other = smooth(48, 80)
    streams = [jpeg_lossless(SLICES[0]), jpeg_lossless(other), jpeg_lossless(other), jpeg_lossless(SLICES[1])]
    streams = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    found = packed(tmp_path, [file_of(streams, SLICES[0], JPEG_LOSSLESS, frames=4)])
    kinds = [type(piece) for piece in found[0]]
    assert kinds == [HeaderPiece, CodedPiece, HeaderPiece, StreamPiece, HeaderPiece, CodedPiece, HeaderPiece]


def test_tiny_codestreams_are_not_taken_apart() -> None:
    image = smooth(8, 8)
    data = file_of([jpeg_lossless(image)], image, JPEG_LOSSLESS)
    found = scan(data)
    plan = split(data, found)
    assert take_apart(data, found, plan) == (plan, {})


def test_a_codestream_that_frames_would_not_beat_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth(64, 64)
    data = file_of([jpeg_lossless(image)], image, JPEG_LOSSLESS)
    found = scan(data)
    plan = split(data, found)
    assert take_apart(data, found, plan)[0].kind == "coded"
    monkeypatch.setattr(coded, "encode_band", lambda raw, *_: bytes(raw.size))
    assert take_apart(data, found, plan) == (plan, {})


def test_every_file_is_covered_whatever_its_fragments_hold() -> None:
    source = random.Random(6)
    stream = jpeg_lossless(SLICES[0])
    for _ in range(40):
        cuts = sorted(source.randrange(len(stream)) for _ in range(source.randrange(4)))
        fragments = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        fragments *= source.choice((1, 2))
        data = file_of(
            fragments, SLICES[0], source.choice((JPEG_LOSSLESS, RLE)), frames=source.choice((1, 2))
        )
        found = scan(data)
        plan, _ = take_apart(data, found, split(data, found))
        at = 0
        for run in plan.runs:
            assert run.offset == at
            assert run.length > 0
            at += run.length
        assert at == len(data)
