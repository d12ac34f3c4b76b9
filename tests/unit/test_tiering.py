"""Copying and evicting: every copy is proven, the last one stays, header packs come after what they name."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import TierError, TierFull, UsageError
from dicomfs.model import ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import contents, digests, flip, objects, rows, write_sources
from tests.tiered import FILES, LABORATORY, copy_all, evict_all, packed, two_tiers


def placements(archive: Archive) -> set[frozenset[str]]:
    return {frozenset(record.tiers) for record in archive.catalog.objects()}


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
def test_what_is_only_elsewhere_reads_back_exactly(tmp_path: Path, plain: bool) -> None:
    with packed(tmp_path, plain=plain) as archive:
        copied = copy_all(archive)
        assert copied.objects == len(list(archive.catalog.objects()))
        assert copied.journal == len(objects(archive, "journal"))
        evicted = evict_all(archive)
        assert (evicted.objects, evicted.kept, evicted.failed) == (copied.objects, [], [])
        assert [path for path in objects(archive) if path.parent.name != "journal"] == []
        assert placements(archive) == {frozenset({LABORATORY})}
        assert contents(archive) == digests(FILES)
        assert archive.verify(deep=True).problems == []
        assert archive.status()["tiers"]["local"] == {"objects": 0, "bytes": 0}  # type: ignore[index]


def test_nothing_is_copied_or_evicted_twice(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        count = copy_all(archive).objects
        again = copy_all(archive)
        assert (again.objects, again.already, again.journal) == (0, count, 0)
        evict_all(archive)
        again = evict_all(archive)
        assert (again.objects, again.already) == (0, count)


def test_the_last_copy_is_never_evicted(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        report = evict_all(archive)
        assert (report.objects, len(report.kept)) == (0, len(list(archive.catalog.objects())))
        copy_all(archive)
        evict_all(archive)
        report = evict_all(archive, LABORATORY)
        assert (report.objects, len(report.kept)) == (0, len(list(archive.catalog.objects())))
        assert contents(archive) == digests(FILES)


def test_a_copy_that_is_gone_does_not_count(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        shutil.rmtree(tmp_path / LABORATORY / "pixel")
        report = evict_all(archive)
        assert {key.split("/")[0] for key, _ in report.kept} == {"pixel"}
        assert contents(archive) == digests(FILES)


def test_a_damaged_copy_is_not_copied(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        flip(objects(archive, "pixel")[0], 100)
        tiering = archive.tiering()
        report = tiering.copy(LABORATORY, tiering.objects(), NullProgress())
        assert [key.split("/")[0] for key, _ in report.failed] == ["pixel"]
        named = {
            key
            for record in archive.catalog.objects()
            if record.key.startswith("header/") and LABORATORY in record.tiers
            for key in archive.catalog.references(record.key)
        }
        assert all(LABORATORY in archive.catalog.object(key).tiers for key in named)


def test_what_was_put_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with packed(tmp_path) as archive:
        before = FolderTier.put

        def put(self: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            before(self, key, source, sha256)
            if self.name == LABORATORY and key.startswith("pixel/"):
                flip(self.path / key, 50)

        monkeypatch.setattr(FolderTier, "put", put)
        tiering = archive.tiering()
        report = tiering.copy(LABORATORY, tiering.objects(), NullProgress())
        assert report.failed
        assert all("other bytes come back" in reason for key, reason in report.failed if "pixel/" in key)
        evict_all(archive)
        assert contents(archive) == digests(FILES)


def test_damaged_rests_of_a_writer_that_died_are_replaced(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        (source, *_) = objects(archive, "pixel")
        rest = tmp_path / LABORATORY / source.relative_to(archive.paths.local_tier)
        rest.parent.mkdir(parents=True)
        rest.write_bytes(b"half of it")
        copy_all(archive)
        evict_all(archive)
        assert contents(archive) == digests(FILES)


def test_only_what_chosen_series_need_is_copied(tmp_path: Path) -> None:
    with two_tiers(tmp_path) as archive:
        for turn, files in enumerate([FILES[:4], FILES[6:]]):
            archive.import_paths([write_sources(tmp_path / f"in{turn}", files)])
            archive.pack()
        first = min(row.id.series for _, row in rows(archive))
        tiering = archive.tiering()
        report = tiering.copy(LABORATORY, tiering.objects([first]), NullProgress())
        assert (report.objects, report.failed) == (2, [])
        evicted = evict_all(archive)
        assert (evicted.objects, len(evicted.kept)) == (2, 2)


def test_a_run_that_is_told_to_stop_says_so_and_is_taken_up_again(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        stop = threading.Event()
        stop.set()
        tiering = archive.tiering()
        report = tiering.copy(LABORATORY, tiering.objects(), NullProgress(), stop)
        assert (report.stopped, report.objects, report.journal) == (True, 0, 0)
        assert copy_all(archive).objects == len(list(archive.catalog.objects()))


def test_a_full_tier_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with packed(tmp_path) as archive:
        before = FolderTier.put

        def put(self: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            if self.name == LABORATORY and key.startswith("header/"):
                raise TierFull(self.name, key, "no space left")
            before(self, key, source, sha256)

        monkeypatch.setattr(FolderTier, "put", put)
        tiering = archive.tiering()
        with pytest.raises(TierFull):
            tiering.copy(LABORATORY, tiering.objects(), NullProgress())
        monkeypatch.undo()
        copy_all(archive)


def test_warming_brings_everything_back(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        copy_all(archive)
        evict_all(archive)
        tiering = archive.tiering()
        report = tiering.warm(tiering.objects(), NullProgress())
        assert report.objects == len(list(archive.catalog.objects()))
        assert placements(archive) == {frozenset({"local", LABORATORY})}
        shutil.rmtree(tmp_path / LABORATORY)
        assert contents(archive) == digests(FILES)


def test_without_a_key_nothing_leaves(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        (tmp_path / "key").unlink()
        with pytest.raises(UsageError, match="key"):
            copy_all(archive)
        assert list((tmp_path / LABORATORY).rglob("pixel/*/*")) == []


def test_what_an_encrypted_tier_holds_says_nothing(tmp_path: Path) -> None:
    with packed(tmp_path, plain=False) as archive:
        copy_all(archive)
        local = {path.read_bytes() for path in objects(archive)}
        names = {path.name for path in objects(archive)}
    for path in (tmp_path / LABORATORY).rglob("*"):
        if path.is_file() and path.parent.name != "owner":
            data = path.read_bytes()
            assert data not in local
            assert path.name not in names
            assert b"Patient" not in data
            assert b"\x28\xb5\x2f\xfd" not in data


def test_the_tier_of_another_archive_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with packed(tmp_path / "one") as first:
        copy_all(first)
    with packed(tmp_path / "two") as second:
        url = (tmp_path / "one" / LABORATORY).as_uri()
        settings = second.paths.settings
        own = (tmp_path / "two" / LABORATORY).as_uri()
        settings.write_text(settings.read_text().replace(own, url))
    with (
        Archive.open(second.paths.root) as again,
        pytest.raises((UsageError, TierError), match="another archive"),
    ):
        copy_all(again)


def test_moving_to_another_profile_takes_the_copies_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomfs.packing import repack

    monkeypatch.setattr(repack, "LEAST_GAIN", -1e9)
    with packed(tmp_path) as archive:
        copy_all(archive)
        evict_all(archive)
        report = archive.repack("dense")
        assert (report.failed, report.moved > 0) == ([], True)
        for record in archive.catalog.objects():
            assert LABORATORY in record.tiers
        shutil.rmtree(archive.paths.local_tier / "pixel", ignore_errors=True)
    with Archive.open(tmp_path / "archive") as again:
        assert contents(again) == digests(FILES)


def test_frames_of_evicted_packs_are_found_again(tmp_path: Path) -> None:
    with packed(tmp_path) as archive:
        copy_all(archive)
        evict_all(archive)
        slices = samples.ct_series(4, 48, 48)
        again = [data.replace(b"Head routine", b"Head Routine") for data in slices]
        archive.import_paths([write_sources(tmp_path / "again", again)])
        archive.pack()
        assert contents(archive) == digests([*FILES, *again])
        assert [path for path in objects(archive, "pixel")] == []
