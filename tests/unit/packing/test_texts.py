"""Texts that headers of several patients have in common are stored once, and are all of each of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError
from dicomfs.forgetting import ForgetReport
from dicomfs.format.shared_texts import is_part_of
from dicomfs.format.text_pack import read_text
from dicomfs.model import InstanceId, ObjectKey, is_header_pack, is_text_pack
from dicomfs.packing import texts as choosing
from dicomfs.packs import PackSource
from dicomfs.recovery import recover
from tests import samples
from tests.archives import flip, read_whole, rows, write_sources

PROTOCOL = samples.protocol("scanner")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


def take(archive: Archive, tmp_path: Path, *files: bytes) -> int:
    """Import and pack; the bytes that headers and texts take since."""
    before = of_headers(archive)
    archive.import_paths([write_sources(tmp_path / f"in{len(list(tmp_path.iterdir()))}", files)])
    assert not archive.pack("fast").failed
    verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])
    return of_headers(archive) - before


def of_headers(archive: Archive) -> int:
    records = archive.catalog.objects()
    return sum(one.size for one in records if is_header_pack(one.key) or is_text_pack(one.key))


def texts(archive: Archive) -> list[ObjectKey]:
    return [one.key for one in archive.catalog.objects() if is_text_pack(one.key)]


def text(archive: Archive, key: ObjectKey) -> bytes:
    return read_text(PackSource(archive.tier).pack(key))


def of(archive: Archive, patient: str) -> list[InstanceId]:
    """The instances of a patient."""
    return [row.id for (folder, *_), row in rows(archive) if patient in folder]


def test_another_patient_pays_for_what_is_his_own_only(archive: Archive, tmp_path: Path) -> None:
    first = samples.long_headers("First^Patient", PROTOCOL)
    alone = take(archive, tmp_path, *first)
    assert alone > 8000
    others = [samples.long_headers(f"{name}^Patient", PROTOCOL) for name in ("Second", "Third")]
    for files in others:
        assert take(archive, tmp_path, *files) < alone / 6
    assert len(texts(archive)) == 1
    assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(
        [*first, *others[0], *others[1]]
    )


def test_patients_of_one_batch_share_their_texts(archive: Archive, tmp_path: Path) -> None:
    names = [f"Patient^{number}" for number in range(3)]
    take(archive, tmp_path, *(file for name in names for file in samples.long_headers(name, PROTOCOL)))
    (key,) = texts(archive)
    assert len(archive.catalog.referring([key])) == 1


def test_what_two_patients_have_in_common_becomes_a_text_that_a_third_one_shares(
    archive: Archive, tmp_path: Path
) -> None:
    each = {name: PROTOCOL + samples.protocol(name, 300) for name in ("First", "Second", "Third")}
    sizes = [
        take(archive, tmp_path, *samples.long_headers(f"{name}^Patient", value))
        for name, value in each.items()
    ]
    assert sizes[2] < sizes[1] / 2
    assert len(texts(archive)) == 2
    common = [key for key in texts(archive) if is_part_of(text(archive, key), each["Third"])]
    assert all(is_part_of(text(archive, common[0]), value) for value in each.values())


def test_a_text_with_more_than_the_headers_have_is_never_taken(archive: Archive, tmp_path: Path) -> None:
    take(
        archive, tmp_path, *samples.long_headers("First^Patient", PROTOCOL + b"for First^Patient alone\n" * 9)
    )
    take(archive, tmp_path, *samples.long_headers("Second^Patient", PROTOCOL))
    source = PackSource(archive.tier)
    for key in (one.key for one in archive.catalog.objects() if is_header_pack(one.key)):
        (needed,) = [one for one in archive.catalog.references(key) if is_text_pack(one)]
        assert is_part_of(text(archive, needed), source.header_bytes(key, 0, 0))


def test_verify_names_a_header_pack_whose_text_says_more(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(archive, tmp_path, *samples.long_headers("First^Patient", PROTOCOL + samples.protocol(1, 200)))
    monkeypatch.setattr(choosing, "is_part_of", lambda *_: True)
    files = samples.long_headers("Second^Patient", PROTOCOL)
    archive.import_paths([write_sources(tmp_path / "second", files)])
    archive.pack("fast")
    assert archive.verify().problems == []
    (problem,) = archive.verify(deep=True).problems
    assert "needs a text that is not all its own" in problem


def test_a_text_stays_as_long_as_anybody_needs_it_and_no_longer(archive: Archive, tmp_path: Path) -> None:
    first = samples.long_headers("First^Patient", PROTOCOL)
    second = samples.long_headers("Second^Patient", PROTOCOL)
    take(archive, tmp_path, *first)
    take(archive, tmp_path, *second)
    (key,) = texts(archive)
    report = archive.decisions().forget(of(archive, "First"), "asked for")
    assert key in report.shared
    assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(second)
    assert archive.verify(deep=True).problems == []
    archive.decisions().forget(of(archive, "Second"), "asked for")
    assert not list((archive.paths.local_tier / "text").rglob("*/*"))
    assert archive.verify(deep=True).problems == []


def test_texts_are_found_after_the_index_and_the_list_of_frames_were_lost(
    archive: Archive, tmp_path: Path
) -> None:
    alone = take(archive, tmp_path, *samples.long_headers("First^Patient", PROTOCOL))
    archive.close()
    shutil.rmtree(archive.paths.index)
    report = recover(archive.paths.root, archive.paths.local_tier.as_uri())
    assert report.problems == []
    with Archive.open(archive.paths.root) as recovered:
        assert take(recovered, tmp_path, *samples.long_headers("Second^Patient", PROTOCOL)) < alone / 6
        assert len(texts(recovered)) == 1


def test_a_text_that_is_missing_is_told_and_its_header_pack_kept(archive: Archive, tmp_path: Path) -> None:
    files = samples.long_headers("First^Patient", PROTOCOL)
    take(archive, tmp_path, *files)
    (key,) = texts(archive)
    place = archive.paths.local_tier / key
    place.rename(tmp_path / "text")
    assert any(key in problem for problem in archive.verify().problems)
    archive.close()
    shutil.rmtree(archive.paths.index)
    report = recover(archive.paths.root, archive.paths.local_tier.as_uri())
    assert any(key in problem for problem in report.problems)
    with Archive.open(archive.paths.root) as recovered:
        for weeks in (0, 9):
            collected = recovered.collector().collect(now_ns=time.time_ns() + weeks * 604_800 * 10**9)
            assert collected.doubts
            assert not collected.deleted
    (tmp_path / "text").rename(place)
    shutil.rmtree(archive.paths.index)
    assert recover(archive.paths.root, archive.paths.local_tier.as_uri()).problems == []
    with Archive.open(archive.paths.root) as whole:
        assert sorted(read_whole(whole, row.id) for _, row in rows(whole)) == sorted(files)


def test_a_text_that_rotted_is_an_error_with_its_name_and_never_other_bytes(
    archive: Archive, tmp_path: Path
) -> None:
    take(archive, tmp_path, *samples.long_headers("First^Patient", PROTOCOL))
    (key,) = texts(archive)
    flip(archive.paths.local_tier / key, 2000)
    archive.close()
    with Archive.open(archive.paths.root) as again, pytest.raises(DicomfsError, match=key):
        read_whole(again, of(again, "First")[0])


def test_a_text_that_was_collected_between_choosing_and_commit_is_made_again(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(archive, tmp_path, *samples.long_headers("First^Patient", PROTOCOL))
    real = choosing.BatchTexts.choose
    forgotten: list[ForgetReport] = []

    def choose(self: choosing.BatchTexts, *of_block: object) -> object:
        found = real(self, *of_block)  # type: ignore[arg-type]
        if not forgotten:
            forgotten.append(archive.decisions().forget(of(archive, "First"), "meanwhile"))
        return found

    monkeypatch.setattr(choosing.BatchTexts, "choose", choose)
    second = samples.long_headers("Second^Patient", PROTOCOL)
    take(archive, tmp_path, *second)
    assert forgotten[0].destroyed
    assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(second)


@pytest.mark.parametrize("lines", [30, 150])
def test_what_is_short_or_too_little_for_an_object_of_its_own_stays_in_the_header_pack(
    archive: Archive, tmp_path: Path, lines: int
) -> None:
    take(archive, tmp_path, *samples.long_headers("First^Patient", samples.protocol(1, lines)))
    assert texts(archive) == []
