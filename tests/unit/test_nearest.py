"""Reading from wherever a copy lies: the next when one fails, healed when bad, promoted when used."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError, ObjectNotFound, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.folder import FolderTier
from tests.archives import contents, digests, flip, objects, readable, rows
from tests.tiered import FILES, LABORATORY, copy_all, evict_all, packed

KINDS = ("pixel", "header", "opaque")


def promoted(archive: Archive) -> int:
    return sum("local" in record.tiers for record in archive.catalog.objects())


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_copy_that_is_gone_is_read_elsewhere(tmp_path: Path, kind: str, plain: bool) -> None:
    with packed(tmp_path, plain=plain) as archive:
        copy_all(archive)
        shutil.rmtree(archive.paths.local_tier / kind)
        assert contents(archive) == digests(FILES)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_local_copy_is_replaced_by_a_good_one(tmp_path: Path, kind: str, plain: bool) -> None:
    with packed(tmp_path, plain=plain) as archive:
        copy_all(archive)
    for place in range(60, 400, 40):
        for path in objects(archive, kind):
            flip(path, min(place, path.stat().st_size - 1))
        with Archive.open(tmp_path / "archive") as again:
            assert contents(again) == digests(FILES)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
def test_a_bad_copy_elsewhere_is_replaced_when_a_good_one_is_there(tmp_path: Path, plain: bool) -> None:
    with packed(tmp_path, plain=plain) as archive:
        copy_all(archive)
        for path in (tmp_path / LABORATORY / "pixel").rglob("*"):
            if path.is_file():
                flip(path, 200)
        for record in archive.catalog.objects():
            if record.key.startswith("pixel/"):
                archive.copies.heal(record.key, LABORATORY)
        evict_all(archive)
        assert contents(archive) == digests(FILES)


def test_the_only_copy_stays_however_bad_it_is(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        evict_all(archive)
        bad = [path for path in (tmp_path / LABORATORY / "pixel").rglob("*") if path.is_file()]
        for path in bad:
            flip(path, path.stat().st_size // 3)
        good, failed = readable(archive)
        assert failed
        assert good < digests(FILES)
        assert all(path.exists() for path in bad)


def test_both_copies_bad_is_an_error_and_destroys_neither(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        both = [
            path
            for root in (archive.paths.local_tier, tmp_path / LABORATORY)
            for path in (root / "pixel").rglob("*")
            if path.is_file()
        ]
        for path in both:
            flip(path, path.stat().st_size // 3)
        held = {path: path.read_bytes() for path in both}
        _, failed = readable(archive)
        assert failed
        assert {path: path.read_bytes() for path in both} == held


def test_what_is_read_is_promoted_when_that_is_wanted(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        copy_all(archive)
        evict_all(archive)
        assert contents(archive) == digests(FILES)
        assert promoted(archive) == 0
    settings = archive.paths.settings
    settings.write_text(settings.read_text() + "\n[archive]\nminimum_free_bytes = 0\n")
    with Archive.open(tmp_path / "archive") as again:
        again.promote_what_is_read()
        assert contents(again) == digests(FILES)
        wait_until_promoted(again)
        shutil.rmtree(tmp_path / LABORATORY)
        assert contents(again) == digests(FILES)
        assert sorted(objects(again, "pixel")) != []


def wait_until_promoted(archive: Archive) -> None:
    end = time.monotonic() + 60
    while promoted(archive) < len(list(archive.catalog.objects())):
        assert time.monotonic() < end, "not promoted"
        time.sleep(0.02)


def test_nothing_is_promoted_without_room(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        evict_all(archive)
    settings = archive.paths.settings
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    settings.write_text(settings.read_text() + f"\n[archive]\nminimum_free_bytes = {free}\n")
    with Archive.open(tmp_path / "archive") as again:
        again.promote_what_is_read()
        assert contents(again) == digests(FILES)
    with Archive.open(tmp_path / "archive") as again:
        assert promoted(again) == 0


def test_an_object_that_no_tier_has_is_an_error(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        shutil.rmtree(archive.paths.local_tier / "pixel")
        shutil.rmtree(tmp_path / LABORATORY / "pixel")
        row = next(row for _, row in rows(archive) if row.size > 1000)
        with pytest.raises(ObjectNotFound):
            archive.reconstructor.open(row.id)


def test_a_tier_that_is_down_gives_its_error_and_works_again_when_it_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        evict_all(archive)
        row = next(row for _, row in rows(archive))

        def down(self: FolderTier, key: ObjectKey, wanted: ByteRange) -> bytes:
            raise TransientTierError(self.name, key, f"unreachable {wanted}")

        with monkeypatch.context() as patched:
            patched.setattr(FolderTier, "get_range", down)
            with pytest.raises(DicomfsError):
                archive.reconstructor.open(row.id)
        time.sleep(1.1)
        assert contents(archive) == digests(FILES)


def test_an_object_evicted_under_a_reader_is_read_elsewhere(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        readers = [(archive.reconstructor.open(row.id), row) for _, row in rows(archive)]
        with Archive.open(tmp_path / "archive") as other:
            evict_all(other)
        for reader, row in readers:
            assert len(reader.read(0, row.size)) == row.size
            reader.close()
        assert contents(archive) == digests(FILES)
