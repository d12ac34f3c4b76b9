"""Verifying and reading what is damaged: every fault is listed, and no read gives other bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.verify import VerifyReport
from tests import samples
from tests.archives import (
    contents,
    digests,
    flip,
    objects,
    overwrite,
    readable,
    rows,
    write_sources,
)

FILES = [
    *samples.ct_series(3, 12, 12),
    samples.encapsulated([b"\xff\xd8" + bytes(range(200)) + b"\xff\xd9"]),
    samples.structured_report(),
    samples.enhanced_mr(3, 8, 8),
]
STEP = 97


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed archive with objects of every kind, to be copied."""
    root = tmp_path_factory.mktemp("sound") / "archive"
    burned = samples.part10(
        samples.write(
            [
                *samples.identity("Sample^Patient", 1, series="sc", modality="OT"),
                *samples.image(8, 8, bits=8),
                (samples.PIXEL_DATA, "OB", bytes(range(64))),
            ]
        )
    )
    with Archive.create(root) as archive:
        archive.import_paths([write_sources(root.parent / "in", [*FILES, burned])])
        archive.pack()
        assert contents(archive) == digests([*FILES, burned])
    return root


@pytest.fixture
def archive(sound: Path, tmp_path: Path) -> Iterator[Archive]:
    root = tmp_path / "archive"
    shutil.copytree(sound, root)
    with Archive.open(root) as opened:
        yield opened


@pytest.fixture
def expected(sound: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in (sound.parent / "in").iterdir()}


def verified(archive: Archive, *, deep: bool) -> VerifyReport:
    """What a fresh process says."""
    with Archive.open(archive.paths.root) as fresh:
        return fresh.verify(deep=deep)


KINDS = ("pixel", "burned", "opaque", "header", "journal")


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_archive_has_neither_problems_nor_notes(
    archive: Archive, expected: set[str], deep: bool
) -> None:
    report = verified(archive, deep=deep)
    assert (report.problems, report.notes) == ([], [])
    assert report.instances == len(expected)
    assert report.objects == len(objects(archive))
    assert {path.relative_to(archive.paths.local_tier).parts[0] for path in objects(archive)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_is_found_and_never_served(
    archive: Archive, expected: set[str], kind: str
) -> None:
    for path in objects(archive, kind):
        data = path.read_bytes()
        for offset in range(0, len(data), STEP):
            changed = bytearray(data)
            changed[offset] ^= 1 << offset % 8
            overwrite(path, bytes(changed))
            with Archive.open(archive.paths.root) as fresh:
                good, failed = readable(fresh)
                assert good <= expected, f"other bytes were served: {kind} at {offset}"
                assert len(good) + failed == len(expected)
                if kind in ("burned", "journal") or offset % 5 == 0:
                    assert fresh.verify(deep=True).problems, f"not found: {kind} at {offset}"
        overwrite(path, data)
    assert verified(archive, deep=True).problems == []


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_object_is_listed(archive: Archive, expected: set[str], kind: str, deep: bool) -> None:
    path = objects(archive, kind)[0]
    path.unlink()
    if kind == "journal":
        # Nothing refers to a journal object: the sequence shows the gap.
        assert verified(archive, deep=deep).problems
        return
    report = verified(archive, deep=deep)
    assert any(path.name in problem and "no such object" in problem for problem in report.problems)
    with Archive.open(archive.paths.root) as fresh:
        good, failed = readable(fresh)
    assert good < expected
    assert len(good) + failed == len(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 1.1])
def test_a_truncated_or_longer_object_is_listed(
    archive: Archive, expected: set[str], kind: str, keep: float
) -> None:
    for path in objects(archive, kind):
        data = path.read_bytes()
        overwrite(path, (data + bytes(len(data)))[: int(len(data) * keep)])
    assert verified(archive, deep=False).problems
    with Archive.open(archive.paths.root) as fresh:
        good, failed = readable(fresh)
    assert good <= expected
    assert len(good) + failed == len(expected)


@pytest.mark.parametrize("kind", ["header", "pixel"])
def test_objects_that_changed_places_are_listed(archive: Archive, tmp_path: Path, kind: str) -> None:
    archive.import_paths([write_sources(tmp_path / "more", samples.ct_series(1, 12, 12, 5))])
    archive.pack()
    one, two = objects(archive, kind)[:2]
    first, second = one.read_bytes(), two.read_bytes()
    overwrite(one, second)
    overwrite(two, first)
    assert any(one.name in problem for problem in verified(archive, deep=True).problems)
    assert verified(archive, deep=False).problems


def test_of_two_header_packs_that_changed_places_nothing_is_served(archive: Archive, tmp_path: Path) -> None:
    known = set(objects(archive, "header"))
    for number in range(2):
        series = samples.ct_series(2, 12, 12, 5, patient=f"Patient^{number}")
        archive.import_paths([write_sources(tmp_path / f"more{number}", series)])
        archive.pack()
    one, two = set(objects(archive, "header")) - known
    first, second = one.read_bytes(), two.read_bytes()
    overwrite(one, second)
    overwrite(two, first)
    with Archive.open(archive.paths.root) as fresh:
        _, failed = readable(fresh)
    assert failed == 4


def test_spooled_files_that_are_missing_short_or_rotten_are_listed(archive: Archive, tmp_path: Path) -> None:
    archive.import_paths([write_sources(tmp_path / "more", samples.ct_series(4, 12, 12, 5))])
    assert verified(archive, deep=True).problems == []
    missing, short, rotten, _ = [file.path for file in archive.spool.files()]
    missing.unlink()
    with short.open("r+b") as file:
        file.truncate(100)
    flip(rotten, 700)
    assert len(verified(archive, deep=False).problems) == 2
    assert len(verified(archive, deep=True).problems) == 3


def test_an_object_that_nothing_refers_to_is_a_note(archive: Archive) -> None:
    (header,) = objects(archive, "header")
    stray = header.parent.parent / "00" / ("0" * 64)
    stray.parent.mkdir(exist_ok=True)
    shutil.copy(header, stray)
    report = verified(archive, deep=True)
    assert report.problems == []
    assert any("not referred to" in note for note in report.notes)


def test_a_tier_that_is_gone_is_a_problem_and_no_exception(archive: Archive) -> None:
    archive.paths.local_tier.rename(archive.paths.root / "elsewhere")
    for deep in (False, True):
        report = verified(archive, deep=deep)
        assert report.instances == len(rows(archive))
        assert any("missing" in problem or "No such" in problem for problem in report.problems)
