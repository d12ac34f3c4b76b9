"""What is forgotten is gone for ever, what is held stays, whatever happens to index, tiers and processes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import NotFoundError, TierError, UsageError
from dicomfs.format.journal import InstancesForgotten, ObjectsTainted
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal
from dicomfs.model import INSTANCE_LEVEL, InstanceId, Level, Subject
from dicomfs.packing import together
from dicomfs.recovery import recover
from tests import samples
from tests.archives import contents, digests, import_and_pack, rows, write_sources
from tests.clients import Client
from tests.tiered import FILES, LABORATORY, copy_all, copy_of, evict_all

FIRST, SECOND = FILES[:6], FILES[6:]
"""The files of the first patient and of the second."""


@pytest.fixture(params=[True, False], ids=["plain", "encrypted"])
def archive(
    tmp_path: Path, tiered_archives: dict[bool, Path], request: pytest.FixtureRequest
) -> Iterator[Archive]:
    """Two patients, packed together and copied to the laboratory."""
    with copy_of(tiered_archives[request.param], tmp_path / "top") as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path, tiered_archives: dict[bool, Path]) -> Iterator[Archive]:
    with copy_of(tiered_archives[True], tmp_path / "top") as made:
        yield made


def of(archive: Archive, files: list[bytes]) -> list[InstanceId]:
    """The instances of these files."""
    wanted = {hashlib.sha256(data).digest()[:8] for data in files}
    found = [row.id for _, row in rows(archive) if row.sha256_start in wanted]
    assert len(found) == len(files)
    return found


def everything(root: Path) -> bytes:
    """All bytes of all files below a folder, but those of the index."""
    return b"".join(
        path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and "index" not in path.parts
    )


def recovered(archive: Archive, url: str | None = None) -> Archive:
    """The archive after its index was lost."""
    archive.close()
    shutil.rmtree(archive.paths.index)
    report = recover(archive.paths.root, url or archive.paths.local_tier.as_uri())
    assert report.problems == []
    return Archive.open(archive.paths.root)


def test_forgotten_instances_are_gone_and_the_others_read_back(archive: Archive) -> None:
    report = archive.decisions().forget(of(archive, FILES[1:3]), "asked for")
    assert (report.instances, report.unshipped, report.left) == (2, [], [])
    assert contents(archive) == digests([FILES[0], *FILES[3:]])
    verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])
    # One batch, one header pack: the bytes stay where others need them, and the report says so.
    assert {key.split("/")[0] for key in report.shared} == {"header", "pixel"}
    assert report.shared_bytes > 0


def test_what_only_forgotten_instances_needed_is_destroyed_on_every_tier(archive: Archive) -> None:
    count = len(list(archive.catalog.objects()))
    report = archive.decisions().forget(of(archive, FILES), "")
    assert (report.destroyed, report.shared, report.left) == (count, [], [])
    assert list(archive.catalog.objects()) == []
    assert archive.catalog.condemned() == []
    for tier in ("local", LABORATORY):
        assert [key for key, _ in archive.tiers[tier].list("") if key.count("/") == 2] == []
    left = everything(archive.paths.root) + everything(archive.paths.root.parent / LABORATORY)
    assert FILES[5][-64:] not in left
    assert archive.verify().problems == []


def test_destroyed_objects_cannot_be_read_from_a_copy_of_the_tier(
    tmp_path: Path, tiered_archives: dict[bool, Path]
) -> None:
    """Who kept what lay on the encrypted tier has no key to it any more."""
    with copy_of(tiered_archives[False], tmp_path / "top") as archive:
        keys = [record.key for record in archive.catalog.objects()]
        kept = tmp_path / "kept"
        shutil.copytree(tmp_path / "top" / LABORATORY, kept)
        archive.decisions().forget(of(archive, FILES), "")
        for path in kept.rglob("*"):
            there = tmp_path / "top" / LABORATORY / path.relative_to(kept)
            if path.is_file() and path.relative_to(kept).parts[0] != "keyring" and not there.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there)
    with Archive.open(archive.paths.root) as again:
        for key in keys:
            with pytest.raises(TierError, match="destroyed"):
                again.tiers[LABORATORY].get(key)
    # Neither recovery nor gc takes them for anything but rests.
    with recovered(again) as whole:
        assert contents(whole) == set()
        assert whole.collector().collect(now_ns=1).doubts == []
        assert whole.collector().collect(now_ns=10**18).failed == []
        assert [key for key, _ in whole.tiers[LABORATORY].list("") if key.count("/") == 2] == []


def test_stacks_that_another_patient_needs_stay(plain: Archive, tmp_path: Path) -> None:
    """Frames are stored once: forgetting one of two owners must not touch the other's."""
    twin = samples.ct_series(4, 48, 48, patient="Twin^Patient")
    plain.import_paths([write_sources(tmp_path / "twin", twin)])
    plain.pack()
    report = plain.decisions().forget(of(plain, FIRST), "")
    assert any(key.startswith("pixel/") for key in report.shared)
    assert contents(plain) == digests([*SECOND, *twin])
    report = plain.decisions().forget(of(plain, twin), "")
    assert contents(plain) == digests(SECOND)
    assert plain.verify(deep=True).problems == []


def test_lose_the_index_recover_still_gone_still_held(archive: Archive) -> None:
    decisions = archive.decisions()
    held = [row for shown, row in rows(archive) if "Other" in shown[0]]
    study = archive.catalog.series(held[0].id.series).study
    decisions.forget(of(archive, FILES[:2]), "asked for")
    decisions.hold([Subject(Level.STUDY, study), Subject(Level.SERIES, 1)], "trial")
    decisions.release([Subject(Level.SERIES, 1)], "")
    before = rows(archive)
    for _ in range(2):
        with recovered(archive) as again:
            assert rows(again) == before
            assert contents(again) == digests(FILES[2:])
            assert [hold.subject for hold in again.catalog.holds()] == [Subject(Level.STUDY, study)]
            with pytest.raises(UsageError, match="is held"):
                again.decisions().forget([held[0].id], "")
            assert again.verify(deep=True).problems == []


def test_recovering_from_the_other_tier_alone_brings_nothing_back(archive: Archive, tmp_path: Path) -> None:
    archive.decisions().forget(of(archive, FILES[:2]), "")
    archive.decisions().hold([Subject(INSTANCE_LEVEL, of(archive, SECOND)[0].series, 0)], "")
    key = archive.paths.root.parent / "key"
    archive.close()
    shutil.rmtree(archive.paths.root)
    url = (archive.paths.root.parent / LABORATORY).as_uri()
    fresh = tmp_path / "fresh"
    assert recover(fresh, url, key if key.exists() else None).problems == []
    with Archive.open(fresh) as again:
        assert contents(again) == digests(FILES[2:])
        assert len(again.catalog.holds()) == 1


def test_a_tombstone_that_only_another_tier_has_counts(plain: Archive) -> None:
    plain.decisions().forget(of(plain, FILES[:2]), "")
    last = sorted(plain.paths.local_tier.glob("journal/*"))[-1]
    last.unlink()
    with recovered(plain) as again:
        assert contents(again) == digests(FILES[2:])


def test_spooled_instances_are_forgotten_with_their_bytes(plain: Archive, tmp_path: Path) -> None:
    later = samples.ct_series(3, 16, 16, 9)
    plain.import_paths([write_sources(tmp_path / "later", later)])
    (spooled,) = {path.parent for path in plain.paths.spool.glob("0*/*")}
    saved = {path: path.read_bytes() for path in spooled.iterdir()}
    plain.decisions().forget(of(plain, later[:2]), "")
    assert len(list(spooled.iterdir())) == 1
    assert contents(plain) == digests([*FILES, later[2]])
    # Raw bytes that come back, as a crash leaves them, are removed by whoever looks.
    for path, data in saved.items():
        path.write_bytes(data)
    with recovered(plain) as again:
        assert contents(again) == digests([*FILES, later[2]])
        assert len(list(spooled.iterdir())) == 1
        assert again.pack().failed == []
        assert contents(again) == digests([*FILES, later[2]])


def test_an_archive_opened_to_read_hides_what_was_forgotten_and_removes_nothing(
    plain: Archive, tmp_path: Path
) -> None:
    later = samples.ct_series(2, 16, 16, 9)
    plain.import_paths([write_sources(tmp_path / "later", later)])
    (spooled,) = {path.parent for path in plain.paths.spool.glob("0*/*")}
    saved = {path: path.read_bytes() for path in spooled.iterdir()}
    plain.decisions().forget(of(plain, later[:1]), "")
    for path, data in saved.items():
        path.write_bytes(data)
    plain.close()
    (plain.paths.index / "boot").write_text("another boot", encoding="ascii")
    with Archive.open_to_read(plain.paths.root) as reading:
        assert contents(reading) == digests([*FILES, later[1]])
    assert {path: path.read_bytes() for path in spooled.iterdir()} == saved


def test_the_same_bytes_accepted_again_are_another_instance(plain: Archive, tmp_path: Path) -> None:
    before = {row.sha256_start: row.id for _, row in rows(plain)}
    plain.decisions().forget(of(plain, FILES), "")
    report = plain.import_paths([write_sources(tmp_path / "again", FILES)])
    assert (report.taken, report.already) == (len(FILES), 0)
    plain.pack()
    copy_all(plain)
    assert {row.id for _, row in rows(plain)}.isdisjoint(before.values())
    with recovered(plain) as again:
        assert contents(again) == digests(FILES)
        assert again.verify(deep=True).problems == []


def test_a_packer_that_is_under_way_brings_nothing_back(
    plain: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomfs.packer import Packer

    later = samples.ct_series(3, 16, 16, 9)
    plain.import_paths([write_sources(tmp_path / "later", later)])
    before = Packer._place_and_commit

    def commit(self: Packer, *args: object) -> None:
        plain.decisions().forget(of(plain, later[:2]), "")
        before(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Packer, "_place_and_commit", commit)
        assert plain.pack().failed == []
    assert contents(plain) == digests([*FILES, later[2]])
    assert plain.verify(deep=True).problems == []
    with recovered(plain) as again:
        assert contents(again) == digests([*FILES, later[2]])


def test_all_versions_go_with_the_one_that_is_shown(plain: Archive, tmp_path: Path) -> None:
    other = FILES[0].replace(b"Head routine", b"Head Routine")
    assert other != FILES[0]
    plain.import_paths([write_sources(tmp_path / "other", [other])])
    shown, kept = of(plain, [other])[0], of(plain, [FILES[0]])[0]
    assert plain.catalog.row(kept).version == 1
    decisions = plain.decisions()
    subject = Subject(INSTANCE_LEVEL, kept.series, kept.position)
    assert [row.id for row in decisions.instances_of([subject])] == [kept]
    subject = Subject(INSTANCE_LEVEL, shown.series, shown.position)
    assert {row.id for row in decisions.instances_of([subject])} == {shown, kept}
    decisions.forget([kept], "")
    assert contents(plain) == digests([other, *FILES[1:]])
    with recovered(plain) as again:
        assert contents(again) == digests([other, *FILES[1:]])


def test_a_tier_that_cannot_be_reached_is_told_later(plain: Archive, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / LABORATORY).rename(top / "unmounted")
    report = plain.decisions().forget(of(plain, FILES), "")
    assert [tier for tier, _ in report.unshipped] == [LABORATORY]
    assert report.left
    assert contents(plain) == set()
    assert [key for key, _ in plain.tiers["local"].list("") if key.count("/") == 2] == []
    (top / "unmounted").rename(top / LABORATORY)
    collected = plain.collector().collect()
    assert (collected.failed, collected.deleted > 0, collected.journal > 0) == ([], True, True)
    assert [key for key, _ in plain.tiers[LABORATORY].list("") if key.count("/") == 2] == []
    assert plain.catalog.condemned() == []


def test_what_was_evicted_is_destroyed_where_it_is(archive: Archive) -> None:
    evict_all(archive)
    report = archive.decisions().forget(of(archive, FILES), "")
    assert (report.shared, report.left) == ([], [])
    assert [key for key, _ in archive.tiers[LABORATORY].list("") if key.count("/") == 2] == []


def test_moved_packs_that_wait_for_gc_are_destroyed_at_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.packing.repack.LEAST_GAIN", -1e9)
    assert archive.repack("dense").moved
    archive.decisions().forget(of(archive, FILES), "")
    assert [key for key, _ in archive.tiers[LABORATORY].list("") if key.count("/") == 2] == []


@pytest.mark.parametrize("level", [*Level, INSTANCE_LEVEL])
def test_nothing_is_forgotten_while_some_of_it_is_held(plain: Archive, level: int) -> None:
    instance = of(plain, FILES[:1])[0]
    series = plain.catalog.series(instance.series)
    study = plain.catalog.study(series.study)
    numbers = {1: study.patient, 2: study.number, 3: series.number, 4: series.number}
    subject = Subject(level, numbers[level], instance.position if level == INSTANCE_LEVEL else 0)
    decisions = plain.decisions()
    decisions.hold([subject], "trial")
    with pytest.raises(UsageError, match="is held: nothing was forgotten"):
        decisions.forget(of(plain, FILES), "")
    assert contents(plain) == digests(FILES)
    with pytest.raises(UsageError, match="no hold of its own"):
        decisions.release([Subject(Level.SERIES, 2)], "")
    decisions.release([subject], "")
    assert decisions.forget(of(plain, FILES), "").instances == len(FILES)


def test_what_is_not_there_cannot_be_forgotten(plain: Archive) -> None:
    with pytest.raises(NotFoundError):
        plain.decisions().forget([InstanceId(1, 0), InstanceId(99, 0)], "")
    assert contents(plain) == digests(FILES)


@pytest.mark.parametrize("gap", ["journaled", "in the index"])
def test_a_decision_that_died_half_way_is_finished_by_the_next_opening(
    plain: Archive, gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    series = of(plain, SECOND)[0].series
    if gap == "journaled":
        monkeypatch.setattr(CatalogWriter, "forget", die)
    else:
        monkeypatch.setattr("dicomfs.index.spool.SpoolWriter.remove", die)
    with pytest.raises(Died):
        plain.decisions().forget(of(plain, FILES[:2]), "")
    monkeypatch.undo()
    plain.close()
    with Archive.open(plain.paths.root) as again:
        assert contents(again) == digests(FILES[2:])
        assert not again.paths.decision_mark.exists()
        assert again.verify(deep=True).problems == []
        monkeypatch.setattr(CatalogWriter, "hold", die)
        with pytest.raises(Died):
            again.decisions().hold([Subject(Level.SERIES, series)], "")
        monkeypatch.undo()
    with Archive.open(plain.paths.root) as again:
        assert [hold.subject for hold in again.catalog.holds()] == [Subject(Level.SERIES, series)]


def test_what_nobody_needs_is_destroyed_though_the_process_died_before(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    monkeypatch.setattr("dicomfs.collecting.Collector.destroy", die)
    with pytest.raises(Died):
        archive.decisions().forget(of(archive, FILES), "")
    monkeypatch.undo()
    assert {one.since_ns for one in archive.catalog.condemned()} == {0}
    assert archive.collector().collect().failed == []
    for tier in ("local", LABORATORY):
        assert [key for key, _ in archive.tiers[tier].list("") if key.count("/") == 2] == []
    assert list(archive.catalog.objects()) == []


def test_nothing_is_forgotten_where_the_journal_cannot_be_written(
    plain: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, entries: object) -> None:
        raise TierError("local", "journal", "no space left")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(TierError):
        plain.decisions().forget(of(plain, FILES[:2]), "")
    monkeypatch.undo()
    plain.close()
    with Archive.open(plain.paths.root) as again:
        assert contents(again) == digests(FILES)


def test_header_packs_that_cannot_be_read_hold_what_they_name(plain: Archive, tmp_path: Path) -> None:
    evict_all(plain)
    plain.close()
    (tmp_path / "top" / LABORATORY).rename(tmp_path / "top" / "unmounted")
    with Archive.open(plain.paths.root) as blind:
        instances = [row.id for _, row in rows(blind)][:2]
        report = blind.decisions().forget(instances, "")
        assert (report.instances, report.destroyed) == (2, 0)
        assert len(rows(blind)) == len(FILES) - 2
    (tmp_path / "top" / "unmounted").rename(tmp_path / "top" / LABORATORY)
    with Archive.open(plain.paths.root) as again:
        assert len(contents(again)) == len(FILES) - 2


def test_a_stub_of_what_was_forgotten_is_there_and_cannot_be_opened(plain: Archive) -> None:
    later = samples.ct_series(2, 16, 16, 9)
    client = Client(plain)
    client.put("stub.dcm", later[0])
    client.close()
    assert plain.pack().failed == []
    client = Client(plain)
    assert client.get("stub.dcm") == later[0]
    client.put("whole.dcm", later[1])
    plain.decisions().forget(of(plain, later), "")
    with pytest.raises(NotFoundError):
        client.get("stub.dcm")
    client.close()
    # A file that has its bytes still is a file; it is not taken again by itself, nor made a stub.
    plain.pack()
    client = Client(plain)
    client.settle()
    assert client.get("whole.dcm") == later[1]
    client.close()
    assert contents(plain) == digests(FILES)
    assert plain.verify().problems == []


def test_parts_that_are_packed_together_leave_out_what_was_forgotten(
    plain: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small parts of a study are packed again as one: a way for what was forgotten to come back, or to go."""
    monkeypatch.setattr(together, "DEPOSITS", 3)
    later = samples.ct_series(6, 24, 24, 9, patient="Late^Patient")
    for turn in (0, 1):
        import_and_pack(plain, tmp_path / f"late{turn}", later[2 * turn : 2 * turn + 2])
    assert plain.decisions().forget(of(plain, later[:1]), "").shared != []
    assert import_and_pack(plain, tmp_path / "late2", later[4:]) == 3
    assert contents(plain) == digests([*FILES, *later[1:]])
    plain.collector().collect()
    verified = plain.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])
    # Nothing of it is left in any object.
    found = [part for row in of(plain, later[1:2]) for part in plain.catalog.parts(row.series)]
    assert all(len(plain.catalog.places_in(part.header_key)[part.part_index]) == 5 for part in found)
    with recovered(plain) as again:
        assert contents(again) == digests([*FILES, *later[1:]])


def test_the_journal_names_numbers_and_the_reason(plain: Archive) -> None:
    instances = of(plain, FILES[:2])
    plain.decisions().forget(instances, "asked for")
    journal = Journal(plain.tier, plain.archive_id)
    forgotten, tainted = journal.read(journal.list()[-1]).entries
    assert forgotten == InstancesForgotten(tuple(sorted(instances)), "asked for")
    assert isinstance(tainted, ObjectsTainted)
    assert {key.partition("/")[0] for key in tainted.keys} == {"header", "pixel"}
    assert set(tainted.keys) >= plain.catalog.tainted() > set()
