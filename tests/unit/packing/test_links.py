"""Frames that are stored already are referred to, after a comparison, and stay counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.model import FramePiece, ObjectKey, PixelLayout
from dicomfs.packing import plan as planning
from dicomfs.packing.fingerprint import fingerprints
from dicomfs.packs import PackSource
from dicomfs.recovery import recover
from tests import samples
from tests.archives import flip, read_whole, rows, write_sources
from tests.codestreams import JPEG_LOSSLESS, file_of, jpeg_lossless, smooth

IMAGES = [smooth(64, 64, seed=seed) for seed in range(12)]


def series(patient: str, images: Sequence[np.ndarray] = IMAGES, modality: str = "CT") -> list[bytes]:
    """A series of plain slices."""
    files = []
    for number, image in enumerate(images, 1):
        head = samples.identity(patient, number, modality=modality) + samples.plane(number * 2.0)
        head += samples.image(*image.shape[:2], bits=16, stored=12)
        data = samples.write([*head, (samples.PIXEL_DATA, "OW", image.tobytes())])
        files.append(samples.part10(data, instance=samples.uid(patient, "s", number)))
    return files


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


def take(archive: Archive, tmp_path: Path, files: list[bytes]) -> tuple[int, int]:
    """Import and pack; bytes stored, and of them in packs of frames."""
    source = tmp_path / f"in{len(list(tmp_path.iterdir()))}"
    archive.import_paths([write_sources(source, files)])
    before = of_frames(archive)
    report = archive.pack("fast")
    assert not report.failed
    assert not archive.verify(deep=True).problems
    return report.stored_bytes, of_frames(archive) - before


def of_frames(archive: Archive) -> int:
    return sum(record.size for record in archive.catalog.objects() if not record.key.startswith("header/"))


def packs_of(archive: Archive) -> list[frozenset[ObjectKey]]:
    """For every file, in the order of the tree, the packs of its frames."""
    source, found = PackSource(archive.tier), []
    for _, row in rows(archive):
        place = archive.catalog.part_of(row.id)
        pieces = source.part(place.header_key, place.part_index).entries[place.row].pieces
        found.append(frozenset(piece.pack for piece in pieces if isinstance(piece, FramePiece)))
    return found


def test_a_series_under_another_patient_adds_its_headers_only(archive: Archive, tmp_path: Path) -> None:
    first = take(archive, tmp_path, series("First^Patient"))
    assert first[1] > 10_000
    for patient in ("Second^Patient", "Third^Patient"):
        stored, frames = take(archive, tmp_path, series(patient))
        assert frames == 0
        assert stored < first[0] / 4
    assert len(set(packs_of(archive))) == 1
    every = [*series("First^Patient"), *series("Second^Patient"), *series("Third^Patient")]
    assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(every)


def test_equal_series_in_one_batch_share_their_frames(archive: Archive, tmp_path: Path) -> None:
    alone = take(archive, tmp_path, series("First^Patient", IMAGES[:6]))[1]
    both = [*series("Second^Patient", IMAGES[6:]), *series("Third^Patient", IMAGES[6:])]
    assert take(archive, tmp_path, both)[1] < 1.2 * alone


def test_repeated_frames_of_a_cine_are_stored_once(archive: Archive, tmp_path: Path) -> None:
    frames = [IMAGES[n % 3] for n in range(30)]
    head = samples.identity("Cine^Patient", 1, sop_class=samples.US_MULTIFRAME, modality="XA")
    head += samples.image(64, 64, bits=16, stored=12, frames=30)
    value = b"".join(frame.tobytes() for frame in frames)
    data = samples.write([*head, (samples.PIXEL_DATA, "OW", value)])
    file = samples.part10(data, sop_class=samples.US_MULTIFRAME, instance=samples.uid("Cine^Patient", "s", 1))
    take(archive, tmp_path, [file])
    (key,) = packs_of(archive)[0]
    (stack,) = PackSource(archive.tier).pack(key).stacks
    assert stack.frames == 3
    ((_, row),) = rows(archive)
    assert read_whole(archive, row.id) == file


def test_compressed_frames_are_found_among_plain_ones(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, series("First^Patient"))
    streams = [jpeg_lossless(image) for image in IMAGES]
    streams = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    coded = file_of(streams, IMAGES[0], JPEG_LOSSLESS, frames=len(streams), patient="Other^Patient")
    assert take(archive, tmp_path, [coded])[1] == 0


def test_part_of_a_series_is_found_and_the_rest_is_stored(archive: Archive, tmp_path: Path) -> None:
    images = [smooth(64, 64, seed=seed) for seed in range(100, 160)]
    whole = take(archive, tmp_path, series("First^Patient", images))[1]
    mixed = [*images[:50], *(smooth(64, 64, seed=seed) for seed in range(200, 210))]
    assert take(archive, tmp_path, series("Second^Patient", mixed))[1] < whole / 3


def test_references_are_recorded_recounted_and_recovered(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, series("First^Patient"))
    take(archive, tmp_path, series("Second^Patient"))
    headers = [one.key for one in archive.catalog.objects() if one.key.startswith("header/")]
    (pixel,) = [one.key for one in archive.catalog.objects() if one.key.startswith("pixel/")]
    assert [archive.catalog.references(key) for key in headers] == [[pixel]] * 2
    with archive.catalog.write() as writer:
        writer.set_references(headers[0], [])
    assert any("recorded" in problem for problem in archive.verify().problems)
    recover(tmp_path / "again", f"file://{tmp_path / 'archive' / 'local'}")
    with Archive.open(tmp_path / "again") as again:
        assert not again.verify(deep=True).problems
        assert take(again, tmp_path, series("Third^Patient"))[1] == 0, "the index was not made again"


def test_frames_are_found_after_their_index_was_deleted(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, series("First^Patient"))
    shutil.rmtree(archive.paths.frame_index)
    assert take(archive, tmp_path, series("Second^Patient"))[1] == 0


def test_a_fingerprint_alone_links_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(archive, tmp_path, series("First^Patient", IMAGES[:1]))
    known = fingerprints(IMAGES[0].tobytes(), PixelLayout(64, 64, 1, 16, 12, 11, signed=False))
    monkeypatch.setattr(planning, "fingerprints", lambda raw, layout: known)
    files = series("Second^Patient", IMAGES[1:4])
    assert take(archive, tmp_path, files)[1] > 0
    second = [row for shown, row in rows(archive) if "Second" in shown[0]]
    assert sorted(read_whole(archive, row.id) for row in second) == sorted(files)


def test_a_damaged_pack_is_not_relied_on(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, series("First^Patient"))
    (path,) = [path for path in (archive.paths.root / "local" / "pixel").rglob("*") if path.is_file()]
    path.chmod(0o600)
    flip(path, 2000)
    files = series("Second^Patient", [*IMAGES, smooth(64, 64, seed=77)])
    archive.import_paths([write_sources(tmp_path / "second", files)])
    report = archive.pack("fast")
    assert not report.failed
    second = [row for shown, row in rows(archive) if "Second" in shown[0]]
    assert sorted(read_whole(archive, row.id) for row in second) == sorted(files)


def test_frames_that_may_show_names_do_not_refer_to_others(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, series("First^Patient"))
    assert take(archive, tmp_path, series("Second^Patient", modality="US"))[1] > 0


def test_large_frames_are_found_however_they_were_cut(archive: Archive, tmp_path: Path) -> None:
    for side in (384, 800):
        images = [smooth(side, side, seed=seed) for seed in range(2)]
        assert take(archive, tmp_path, series(f"First^{side}", images))[1] > 0
        source = write_sources(tmp_path / f"dense{side}", series(f"Second^{side}", images))
        archive.import_paths([source])
        before = of_frames(archive)
        assert not archive.pack("dense").failed
        assert of_frames(archive) == before


def test_uniform_and_small_frames_are_stored_as_they_are(archive: Archive, tmp_path: Path) -> None:
    blank = np.full((64, 64), 77, np.uint16)
    take(archive, tmp_path, series("First^Patient", [blank, *IMAGES[:3]]))
    again = series("Second^Patient", [IMAGES[0], blank, IMAGES[2]])
    take(archive, tmp_path, again)
    small = [smooth(16, 16, seed=seed) for seed in range(3)]
    take(archive, tmp_path, series("Third^Patient", small))
    assert take(archive, tmp_path, series("Fourth^Patient", small[:2]))[1] > 0
