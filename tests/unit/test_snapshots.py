"""Snapshots of the catalog: what is in them, where they lie, and what recovery makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomfs import config, recovery
from dicomfs.archive import Archive
from dicomfs.errors import DamagedError, ObjectNotFound
from dicomfs.format.snapshot import SnapshotReader, is_blank
from dicomfs.index.catalog import Catalog
from dicomfs.model import ObjectKey, is_header_pack
from dicomfs.packs import PackSource
from dicomfs.progress import NullProgress
from dicomfs.recover import RecoverReport
from dicomfs.snapshot_files import find_snapshots
from dicomfs.snapshots import SnapshotReport
from dicomfs.tiers.folder import FolderTier
from tests.archives import contents, digests, flip, index_contents, rows, write_sources
from tests.tiered import FILES, LABORATORY, copied, copy_all, packed

MORE = [data.replace(b"Head routine", b"Head Routine") for data in FILES[:2]]


def make(archive: Archive) -> SnapshotReport:
    report = archive.snapshots().make(NullProgress())
    assert (report.failed, report.left_out, report.stopped) == ([], [], False)
    return report


def snapshot_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "snapshot").rglob("*") if path.is_file())


def recovered(root: Path, to: str, key: Path | None = None, *, packs: bool = False) -> RecoverReport:
    return recovery.recover(root / to, (root / LABORATORY).as_uri(), key, from_packs=packs)


def same_with_and_without(root: Path, key: Path | None = None) -> RecoverReport:
    """Recover twice, from the newest snapshot and from packs alone; both say the same."""
    by_packs = recovered(root, "by packs", key, packs=True)
    by_snapshot = recovered(root, "by snapshot", key)
    assert by_snapshot.problems == by_packs.problems
    assert by_snapshot.notes == by_packs.notes
    assert by_packs.snapshot == ""
    with (
        Catalog.open(root / "by packs" / "index") as one,
        Catalog.open(root / "by snapshot" / "index") as other,
    ):
        assert index_contents(other) == index_contents(one)
    return by_snapshot


def read_snapshot(path: Path) -> SnapshotReader:
    data = path.read_bytes()
    return SnapshotReader(lambda offset, length: data[offset : offset + length], len(data), path.name)


@pytest.mark.parametrize(
    "plain, packing", [(True, None), (False, None), (True, "dense")], ids=["plain", "encrypted", "twins"]
)
def test_recovery_from_a_snapshot_gives_the_same_index_and_reads_no_header_pack_for_it(
    tmp_path: Path, plain: bool, packing: config.Profile | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied(tmp_path, plain=plain, packing=packing) as archive:
        report = make(archive)
        assert report.tiers == ["local", LABORATORY]
        assert report.headers == len(
            [one for one in archive.catalog.objects() if one.key.startswith("header")]
        )
    shutil.rmtree(tmp_path / "archive")
    key = None if plain else tmp_path / "key"
    found = same_with_and_without(tmp_path, key)
    assert found.from_snapshot == report.headers
    assert found.snapshot == report.key

    def refuse(source: PackSource, key: ObjectKey, index: int) -> None:
        raise AssertionError(key)

    def refuse_packing(source: PackSource, key: ObjectKey) -> None:
        raise AssertionError(key)

    with monkeypatch.context() as patched:
        patched.setattr(PackSource, "part", refuse)
        patched.setattr(PackSource, "identified_part", refuse)
        patched.setattr(PackSource, "packing", refuse_packing)
        recovered(tmp_path, "blind", key)
    with Archive.open(tmp_path / "blind") as again:
        assert contents(again) == digests(FILES)
        assert again.verify(deep=True).problems == []
        assert all("local" in one.tiers for one in again.catalog.objects() if is_header_pack(one.key))


def test_nothing_of_identity_lies_in_clear_on_an_encrypted_tier(tmp_path: Path) -> None:
    with copied(tmp_path, plain=False) as archive:
        make(archive)
        uids = {row.sop_instance_uid for _, row in rows(archive)}
    (local,) = snapshot_files(tmp_path / "archive" / "local")
    (sealed,) = snapshot_files(tmp_path / LABORATORY)
    assert local.name not in sealed.name
    reader = read_snapshot(local)
    facts = [reader.header(key) for key in list(reader.keys())]
    entries = [one for fact in facts if fact for part in fact.parts for one in part.entries]
    assert {entry.sop_instance_uid for entry in entries} == uids
    with pytest.raises(DamagedError):
        read_snapshot(sealed)


def test_what_came_after_the_snapshot_is_recovered_too(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        make(archive)
        archive.import_paths([write_sources(tmp_path / "more", MORE)])
        archive.pack()
        archive.pins.pin([1])
        copy_all(archive)
    found = same_with_and_without(tmp_path)
    assert found.from_snapshot > 0
    with Archive.open(tmp_path / "by snapshot") as again:
        assert contents(again) == digests([*FILES, *MORE])


def test_what_was_forgotten_after_the_snapshot_stays_forgotten(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        make(archive)
        gone = [row.id for _, row in rows(archive)][:2]
        uids = [row.sop_instance_uid for _, row in rows(archive)][:2]
        archive.decisions().forget(gone, "asked to")
        same_with_and_without(tmp_path)
        with Archive.open(tmp_path / "by snapshot") as again:
            assert not {row.id for _, row in rows(again)} & set(gone)
        # The snapshot still knows them: gc puts another one in its place.
        before = snapshot_files(tmp_path / LABORATORY)
        archive.collector().collect()
        for tier in (tmp_path / "archive" / "local", tmp_path / LABORATORY):
            (left,) = snapshot_files(tier)
            assert left.name not in [path.name for path in before]
            reader = read_snapshot(left)
            entries = [
                entry
                for key in list(reader.keys())
                for part in (reader.header(key) or pytest.fail(key)).parts
                for entry in part.entries
            ]
            assert not {entry.sop_instance_uid for entry in entries} & set(uids)
            assert [is_blank(entry) for entry in entries].count(True) <= len(gone)
    shutil.rmtree(tmp_path / "by snapshot")
    shutil.rmtree(tmp_path / "by packs")
    assert same_with_and_without(tmp_path).from_snapshot > 0


def test_packs_of_another_profile_are_found_from_a_snapshot(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        archive.repack("archive")
        copy_all(archive)
        make(archive)
        assert [one for one in archive.catalog.objects() if archive.catalog.names_of(one.key)]
    same_with_and_without(tmp_path)
    with Archive.open(tmp_path / "by snapshot") as again:
        assert contents(again) == digests(FILES)


def test_the_second_snapshot_takes_over_what_the_first_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied(tmp_path) as archive:
        make(archive)
        archive.import_paths([write_sources(tmp_path / "more", MORE)])
        archive.pack()
        copy_all(archive)
        read: list[ObjectKey] = []
        identified = PackSource.identified_part

        def counted(source: PackSource, key: ObjectKey, index: int) -> object:
            read.append(key)
            return identified(source, key, index)

        with monkeypatch.context() as patched:
            patched.setattr(PackSource, "identified_part", counted)
            report = make(archive)
        assert 0 < len(set(read)) < report.headers
    found = same_with_and_without(tmp_path)
    assert found.from_snapshot == report.headers


def test_the_last_few_are_kept_and_one_is_due_after_changes(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        assert archive.snapshots().is_due()
        kept = []
        for _ in range(4):
            kept.append(make(archive).key)
        assert not archive.snapshots().is_due()
        archive.pins.pin([1])
        assert not archive.snapshots().is_due()
        assert archive.snapshots().is_due(now_ns=2**62)
        for tier in ("local", LABORATORY):
            found, bad = find_snapshots(archive.tiers[tier])
            assert [one.key for one in found] == kept[:1:-1]
            assert bad == []


def test_a_damaged_snapshot_is_passed_over_for_an_older_one_and_for_packs(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        first, second = make(archive), make(archive)
    by_name = {path.name: path for path in snapshot_files(tmp_path / LABORATORY)}
    assert second.key is not None
    newest = by_name.pop(second.key.rsplit("/", 1)[1])
    flip(newest, newest.stat().st_size // 2)
    report = same_with_and_without(tmp_path)
    assert report.snapshot == first.key
    assert [remark for remark in report.remarks if second.key in remark and "passed over" in remark]
    (older,) = by_name.values()
    older.write_bytes(older.read_bytes()[:100])
    for name in ("by packs", "by snapshot"):
        shutil.rmtree(tmp_path / name)
    report = same_with_and_without(tmp_path)
    assert (report.snapshot, report.from_snapshot) == ("", 0)
    assert len(report.remarks) == 2


def test_a_snapshot_of_another_archive_or_another_copy_is_passed_over(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        make(archive)
    (tmp_path / "other").mkdir()
    with packed(tmp_path / "other") as other:
        copy_all(other)
        foreign = make(other)
    shutil.rmtree(tmp_path / LABORATORY / "snapshot")
    shutil.copytree(tmp_path / "other" / LABORATORY / "snapshot", tmp_path / LABORATORY / "snapshot")
    report = same_with_and_without(tmp_path)
    assert report.snapshot == ""
    assert report.remarks == [f"{foreign.key}: passed over: it is of another archive"]


def test_a_copy_of_the_archive_that_went_on_by_itself_does_not_mislead(tmp_path: Path) -> None:
    copied(tmp_path).close()
    shutil.copytree(tmp_path / "archive", tmp_path / "twin")
    with Archive.open(tmp_path / "archive") as archive:
        archive.pins.pin([1])
        copy_all(archive)
    with Archive.open(tmp_path / "twin") as twin:
        twin.pins.pin([2])
        twin.snapshots().make(NullProgress())
    shutil.copytree(
        tmp_path / "twin" / "local" / "snapshot", tmp_path / LABORATORY / "snapshot", dirs_exist_ok=True
    )
    report = same_with_and_without(tmp_path)
    assert "another copy of the archive wrote it" in report.remarks[0]
    with Archive.open(tmp_path / "by snapshot") as again:
        assert again.catalog.pinned_series() == {1}


def test_journal_objects_that_the_tier_lost_come_from_the_snapshot(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        gone = next(row.id for _, row in rows(archive))
        archive.decisions().forget([gone], "asked to")
        make(archive)
    lost = sorted((tmp_path / LABORATORY / "journal").iterdir())[-1]
    lost.unlink()
    report = recovered(tmp_path, "again")
    assert report.problems == []
    assert [
        remark for remark in report.remarks if lost.name in remark and "taken from the snapshot" in remark
    ]
    with Archive.open(tmp_path / "again") as again:
        assert gone not in {row.id for _, row in rows(again)}


def test_a_header_pack_that_is_gone_is_not_believed_to_be_there(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        make(archive)
    header = next(path for path in sorted((tmp_path / LABORATORY / "header").rglob("*")) if path.is_file())
    header.unlink()
    same_with_and_without(tmp_path)


def test_a_snapshot_is_made_where_the_local_header_packs_are_gone(tmp_path: Path) -> None:
    copied(tmp_path).close()
    for path in (tmp_path / "archive" / "local" / "header").rglob("*"):
        if path.is_file():
            path.unlink()
    with Archive.open(tmp_path / "archive") as archive:
        make(archive)
    for path in (tmp_path / LABORATORY / "header").rglob("*"):
        if path.is_file():
            path.unlink()
    with Archive.open(tmp_path / "archive") as archive:
        report = archive.snapshots().make(NullProgress())
        # Everything is taken over from the first: what packs say does not change.
        assert report.left_out == []


def test_the_journal_goes_before_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with copied(tmp_path) as archive:
        archive.pins.pin([1])
        calls: list[str] = []
        put = FolderTier.put

        def noted(tier: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            if tier.name == LABORATORY:
                calls.append(key.split("/")[0])
            put(tier, key, source, sha256)

        with monkeypatch.context() as patched:
            patched.setattr(FolderTier, "put", noted)
            make(archive)
        assert calls == ["journal", "snapshot"]


def test_a_tier_that_is_away_is_told_and_the_others_get_the_snapshot(tmp_path: Path) -> None:
    copied(tmp_path).close()
    (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
    with Archive.open(tmp_path / "archive") as archive:
        report = archive.snapshots().make(NullProgress())
        assert report.tiers == ["local"]
        assert [tier for tier, _ in report.failed] == [LABORATORY]
        with pytest.raises(ObjectNotFound):
            archive.tier.get(ObjectKey("snapshot/00/" + "0" * 64))
