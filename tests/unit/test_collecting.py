"""gc: only what nobody needs goes, on every tier, after its grace, and not while anything is unknown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.collecting import GcReport
from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.packing import repack
from dicomfs.recovery import recover
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import contents, digests, objects, overwrite, rows, write_sources
from tests.tiered import FILES, LABORATORY, copy_all, copy_of, evict_all

HOUR, WEEK = 3600 * 10**9, 7 * 86400 * 10**9


@pytest.fixture(params=[True, False], ids=["plain", "encrypted"])
def archive(
    tmp_path: Path, tiered_archives: dict[bool, Path], request: pytest.FixtureRequest
) -> Iterator[Archive]:
    """Two patients, packed and copied to the laboratory."""
    with copy_of(tiered_archives[request.param], tmp_path / "top") as made:
        yield made
        assert made.catalog.recount_uses() == (0, 0)


@pytest.fixture
def plain(tmp_path: Path, tiered_archives: dict[bool, Path]) -> Iterator[Archive]:
    with copy_of(tiered_archives[True], tmp_path / "top") as made:
        yield made


def collect(archive: Archive, later: int = 0, *, dry_run: bool = False, accept: bool = False) -> GcReport:
    """Run gc as if ``later`` nanoseconds had passed."""
    now = max((one.since_ns for one in archive.catalog.condemned()), default=10**18)
    return archive.collector().collect(now_ns=now + later, dry_run=dry_run, accept_losses=accept)


def listed(archive: Archive, tier: str) -> set[str]:
    """Packs on a tier."""
    return {key for key, _ in archive.tiers[tier].list("") if key.count("/") == 2}


def placed(archive: Archive, tier: str) -> set[str]:
    """Packs that the catalog places on a tier."""
    return {record.key for record in archive.catalog.objects() if tier in record.tiers}


def lose(archive: Archive, series: int) -> None:
    """Take the parts of a series out of the index, as packing them together elsewhere does."""
    for part in archive.catalog.parts(series):
        with archive.catalog.write() as writer:
            writer.remove_part(series, part.part)
            writer.forget([row.id for row in archive.catalog.rows(series)])


def test_nothing_is_collected_where_all_is_needed(archive: Archive) -> None:
    report = collect(archive)
    assert report == GcReport()
    assert collect(archive, 10 * WEEK) == GcReport()
    assert contents(archive) == digests(FILES)


def test_an_evicted_copy_that_was_not_deleted_goes_after_its_grace(
    plain: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(self: FolderTier, key: ObjectKey) -> None:
        raise TierError(self.name, key, "died")

    with monkeypatch.context() as patched:
        patched.setattr(FolderTier, "delete", died)
        assert evict_all(plain).failed
    spare = listed(plain, "local")
    assert placed(plain, "local") == set()
    assert collect(plain, dry_run=True).condemned == len(spare)
    assert plain.catalog.condemned() == []
    assert collect(plain).condemned == len(spare)
    early = collect(plain, HOUR - 1)
    assert (early.condemned, early.waiting, early.deleted) == (0, len(spare), 0)
    assert collect(plain, HOUR, dry_run=True).deleted == len(spare)
    assert listed(plain, "local") == spare
    late = collect(plain, HOUR)
    assert (late.deleted, late.waiting, late.failed) == (len(spare), 0, [])
    assert listed(plain, "local") == set()
    assert plain.catalog.condemned() == []
    assert contents(plain) == digests(FILES)


def test_a_spare_copy_stays_where_it_is_the_only_one(plain: Archive) -> None:
    for record in list(plain.catalog.objects()):
        with plain.catalog.write() as writer:
            writer.remove_placement(record.key, "local")
    collect(plain)
    shutil.rmtree(Path(plain.paths.root).parent / LABORATORY / "pixel")
    report = collect(plain, WEEK)
    assert {key.split("/")[0] for key, _ in report.failed} == {"pixel"}
    assert {key.split("/")[0] for key in listed(plain, "local")} == {"pixel"}


def test_moved_packs_go_from_every_tier(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repack, "LEAST_GAIN", -1e9)
    before = listed(archive, LABORATORY)
    moved = archive.repack("dense").moved
    assert moved
    assert len(listed(archive, LABORATORY)) == len(before) + moved
    assert collect(archive).condemned == moved
    assert collect(archive, WEEK - 1).deleted == 0
    assert collect(archive, WEEK).deleted == moved
    assert listed(archive, LABORATORY) == listed(archive, "local") == placed(archive, LABORATORY)
    assert contents(archive) == digests(FILES)
    assert archive.verify(deep=True).problems == []


def test_header_packs_go_before_what_they_name(archive: Archive) -> None:
    """Both patients were packed together; without the rows nothing needs the header pack."""
    for series in {row.id.series for _, row in rows(archive)}:
        lose(archive, series)
    headers = {key for key in listed(archive, "local") if key.startswith("header/")}
    assert collect(archive).condemned == 2 * len(headers)
    assert collect(archive, WEEK).deleted == 2 * len(headers)
    for tier in ("local", LABORATORY):
        assert listed(archive, tier)
        assert not any(key.startswith("header/") for key in listed(archive, tier))
    assert collect(archive).condemned > 0
    assert collect(archive, WEEK).failed == []
    assert listed(archive, "local") == listed(archive, LABORATORY) == set()
    assert list(archive.catalog.objects()) == []
    assert archive.verify().problems == []


def test_linking_to_a_condemned_pack_keeps_it(archive: Archive, tmp_path: Path) -> None:
    for series in {row.id.series for _, row in rows(archive)}:
        lose(archive, series)
    for key in [record.key for record in archive.catalog.objects() if record.key.startswith("header/")]:
        with archive.catalog.write() as writer:
            writer.remove_object(key)
    collect(archive)
    pixels = {one.key for one in archive.catalog.condemned() if one.key.startswith("pixel/")}
    assert pixels
    archive.import_paths([write_sources(tmp_path / "again", FILES)])
    assert archive.pack().failed == []
    assert not pixels & {one.key for one in archive.catalog.condemned()}
    collect(archive, WEEK)
    assert contents(archive) == digests(FILES)
    assert archive.verify(deep=True).problems == []


def test_what_is_linked_to_while_it_is_collected_is_packed_anew(
    plain: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc wins the race: the frames are found in a pack, which goes before the commit."""
    from dicomfs.packer import Packer

    for series in {row.id.series for _, row in rows(plain)}:
        lose(plain, series)
    assert len(list(plain.catalog.objects())) > 1
    plain.import_paths([write_sources(tmp_path / "again", FILES)])
    before = Packer._place_and_commit
    turns: list[int] = []

    def commit(self: Packer, *args: object) -> None:
        if not turns:
            keys = [record.key for record in plain.catalog.objects()]
            assert plain.collector().destroy(keys) == []
        turns.append(1)
        before(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Packer, "_place_and_commit", commit)
    assert plain.pack().failed == []
    assert len(turns) == 2
    assert contents(plain) == digests(FILES)
    assert plain.verify(deep=True).problems == []
    assert plain.catalog.intents() == []


def test_placing_a_condemned_copy_keeps_it(plain: Archive) -> None:
    keys = sorted(placed(plain, LABORATORY))
    with plain.catalog.write() as writer:
        for key in keys:
            writer.remove_placement(ObjectKey(key), LABORATORY)
    collect(plain)
    assert len(plain.catalog.condemned()) == len(keys)
    copy_all(plain)
    assert plain.catalog.condemned() == []
    assert collect(plain, WEEK).deleted == 0


def test_a_copy_that_gc_takes_away_while_it_is_placed_is_put_again(
    plain: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put finds a condemned copy there, which goes before it is recorded."""
    keys = sorted(placed(plain, LABORATORY))
    with plain.catalog.write() as writer:
        for key in keys:
            writer.remove_placement(ObjectKey(key), LABORATORY)
    collect(plain)
    put = plain.copies.put_proven
    taken: list[ObjectKey] = []

    def proven(key: ObjectKey, size: int, path: Path, to: str) -> None:
        put(key, size, path, to)
        if not taken:
            taken.append(key)
            assert collect(plain, WEEK).deleted

    monkeypatch.setattr(plain.copies, "put_proven", proven)
    copy_all(plain)
    assert listed(plain, LABORATORY) == placed(plain, LABORATORY) == set(keys)
    assert plain.verify().problems == []


def test_nothing_new_is_condemned_while_a_tier_cannot_be_asked(plain: Archive, tmp_path: Path) -> None:
    for series in {row.id.series for _, row in rows(plain)}:
        lose(plain, series)
    (tmp_path / "top" / LABORATORY).rename(tmp_path / "unmounted")
    report = collect(plain)
    assert report.condemned == 0
    assert any(f"tier {LABORATORY} was not looked at" in doubt for doubt in report.doubts)
    (tmp_path / "unmounted").rename(tmp_path / "top" / LABORATORY)
    assert collect(plain).condemned > 0


def test_header_packs_that_the_index_does_not_know_stop_gc(plain: Archive, tmp_path: Path) -> None:
    """An index that was put back from a backup knows less than there is."""
    plain.catalog.snapshot(tmp_path / "backup")
    later = samples.ct_series(3, 32, 32, 7, patient="Later^Patient")
    plain.import_paths([write_sources(tmp_path / "later", later)])
    plain.pack()
    plain.close()
    shutil.rmtree(plain.paths.index)
    (tmp_path / "backup").rename(plain.paths.index)
    with Archive.open(plain.paths.root) as old:
        report = collect(old)
        assert report.condemned == 0
        assert any("dicomfs recover" in doubt for doubt in report.doubts)
    report_of = recover(plain.paths.root, plain.paths.local_tier.as_uri())
    assert report_of.problems == []
    with Archive.open(plain.paths.root) as again:
        assert collect(again) == GcReport()
        assert contents(again) == digests([*FILES, *later])


def test_a_recovery_that_missed_something_stops_gc_until_it_is_accepted(plain: Archive) -> None:
    (header,) = objects(plain, "header")
    plain.close()
    shutil.rmtree(plain.paths.root.parent / LABORATORY / "header")
    sound = header.read_bytes()
    overwrite(header, bytes(len(sound)))
    assert recover(plain.paths.root, plain.paths.local_tier.as_uri()).problems
    with Archive.open(plain.paths.root) as damaged:
        report = collect(damaged)
        assert (report.condemned, bool(report.doubts)) == (0, True)
    # The header pack is found again.
    overwrite(header, sound)
    assert recover(plain.paths.root, plain.paths.local_tier.as_uri()).problems == []
    with Archive.open(plain.paths.root) as whole:
        assert contents(whole) == digests(FILES)
        assert collect(whole) == GcReport()


def test_losses_can_be_accepted(plain: Archive) -> None:
    (header,) = objects(plain, "header")
    plain.close()
    shutil.rmtree(plain.paths.root.parent / LABORATORY / "header")
    header.unlink()
    # Nothing but the journal tells that series are missing; their packs look as if nobody needed them.
    report = recover(plain.paths.root, plain.paths.local_tier.as_uri())
    assert (report.problems, bool(report.notes)) == ([], True)
    with Archive.open(plain.paths.root) as rest:
        assert (collect(rest).condemned, bool(collect(rest).doubts)) == (0, True)
        assert collect(rest, accept=True, dry_run=True).condemned > 0
        assert collect(rest).condemned == 0
        assert collect(rest, accept=True).condemned > 0
        assert collect(rest).doubts == []


def test_another_archive_s_tier_is_left_alone(plain: Archive, tmp_path: Path) -> None:
    for series in {row.id.series for _, row in rows(plain)}:
        lose(plain, series)
    collect(plain)
    before = listed(plain, LABORATORY)
    plain.paths.holder.write_text("somebody else\n", encoding="ascii")
    plain.close()
    with Archive.open(plain.paths.root) as other:
        report = collect(other, WEEK)
        assert any("another copy of this archive" in reason for _, reason in report.failed)
        assert listed(other, LABORATORY) == before


def test_the_journal_owners_and_keyrings_stay(archive: Archive, tmp_path: Path) -> None:
    def others() -> set[str]:
        folder = tmp_path / "top" / LABORATORY
        found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] in ("journal", "owner", "keyring")}

    before = others()
    assert before
    for series in {row.id.series for _, row in rows(archive)}:
        lose(archive, series)
    for _ in range(2):
        collect(archive)
        collect(archive, WEEK)
    assert others() == before


def test_gc_waits_for_who_is_about_to_place(plain: Archive) -> None:
    (key, *_) = sorted(placed(plain, "local"))
    with plain.catalog.write() as writer:
        writer.add_intent(ObjectKey(key), "pack")
        writer.condemn(ObjectKey(key), "local", 1)
    assert collect(plain, WEEK).deleted == 0
    assert key in listed(plain, "local")


def test_what_puts_that_died_left_on_any_tier_goes(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    top = archive.paths.root.parent
    rests = [folder / ".tmp" / ("0" * 32) for folder in (archive.paths.local_tier, top / LABORATORY)]
    for rest in rests:
        rest.write_bytes(b"half an object")
    assert archive.collector().collect().temporaries == 0
    assert all(rest.exists() for rest in rests), "they may belong to puts that are under way"
    monkeypatch.setattr("dicomfs.collecting.LEFT_BEHIND_SECONDS", -1)
    assert archive.collector().collect(dry_run=True).temporaries == 0
    assert archive.collector().collect().temporaries == 2
    assert not any(rest.exists() for rest in rests)
