"""Recovering from tiers that stay where they are, and in place where objects lie on several."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError, UsageError
from dicomfs.recovery import recover
from tests.archives import contents, digests, numbers, objects, readable, tree, write_sources
from tests.tiered import FILES, LABORATORY, copy_all, evict_all, packed


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
def test_a_whole_archive_comes_back_from_one_tier(tmp_path: Path, plain: bool) -> None:
    with packed(tmp_path, plain=plain) as archive:
        copy_all(archive)
        before = tree(archive), numbers(archive)
    shutil.rmtree(tmp_path / "archive")
    key = None if plain else tmp_path / "key"
    report = recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri(), key)
    assert (report.problems, report.instances) == ([], len(FILES))
    with Archive.open(tmp_path / "again") as again:
        assert (tree(again), numbers(again)) == before
        assert contents(again) == digests(FILES)
        assert again.verify(deep=True).problems == []
        assert again.archive_id == archive.archive_id
        assert objects(again, "header") != []
        assert objects(again, "pixel") == []


def test_without_the_key_nothing_comes_back_and_nothing_is_made(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        copy_all(archive)
    url = (tmp_path / LABORATORY).as_uri()
    with pytest.raises(UsageError, match="key"):
        recover(tmp_path / "again", url)
    with Archive.create(tmp_path / "third", {}, tmp_path / "other key"):
        pass
    with pytest.raises(DicomfsError):
        recover(tmp_path / "again", url, tmp_path / "other key")
    assert not (tmp_path / "again").exists()


def test_the_recovered_archive_writes_there_only_after_its_claim(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
    recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri())
    with Archive.open(tmp_path / "again") as again:
        with pytest.raises(UsageError, match="tier claim"):
            evict_all(again, LABORATORY)
        with pytest.raises(UsageError, match="tier claim"):
            copy_all(again)
        ownership = again.tiers.opened(LABORATORY).ownership
        assert ownership is not None
        ownership.claim()
        more = [data.replace(b"Head routine", b"Head Routine") for data in FILES[:2]]
        again.import_paths([write_sources(tmp_path / "more", more)])
        again.pack()
        copy_all(again)
    with Archive.open(tmp_path / "archive") as first, pytest.raises(UsageError, match="tier claim"):
        evict_all(first)


def test_an_index_is_made_again_from_all_tiers(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        copy_all(archive)
        evict_all(archive)
        before = tree(archive), numbers(archive)
    shutil.rmtree(tmp_path / "archive" / "index")
    report = recover(tmp_path / "archive", (tmp_path / "archive" / "local").as_uri())
    assert report.problems == []
    with Archive.open(tmp_path / "archive") as again:
        assert (tree(again), numbers(again)) == before
        assert contents(again) == digests(FILES)


def test_recovering_in_place_from_a_remote_tier(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        before = tree(archive), numbers(archive)
    shutil.rmtree(tmp_path / "archive" / "index")
    shutil.rmtree(tmp_path / "archive" / "local")
    (tmp_path / "archive" / "local").mkdir()
    assert recover(tmp_path / "archive", (tmp_path / LABORATORY).as_uri()).problems == []
    with Archive.open(tmp_path / "archive") as again:
        assert (tree(again), numbers(again)) == before
        assert contents(again) == digests(FILES)
        copy_all(again)


def test_a_tier_that_is_away_is_told_and_the_rest_comes_back(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        before = tree(archive)
    shutil.rmtree(tmp_path / LABORATORY)
    report = recover(tmp_path / "archive", (tmp_path / "archive" / "local").as_uri())
    assert [problem for problem in report.problems if "laboratory was not looked at" in problem]
    with Archive.open(tmp_path / "archive") as again:
        assert tree(again) == before
        assert contents(again) == digests(FILES)


def test_what_can_be_had_of_half_a_tier_is_had(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
    pixels = [path for path in sorted((tmp_path / LABORATORY / "pixel").rglob("*")) if path.is_file()]
    pixels[0].unlink()
    report = recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri())
    assert len(report.problems) == 1
    assert pixels[0].name in report.problems[0]
    with Archive.open(tmp_path / "again") as again:
        good, failed = readable(again)
        assert failed
        assert good < digests(FILES)
        assert len(good) + failed == len(FILES)
