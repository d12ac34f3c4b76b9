"""After forget and gc, the bytes of what was forgotten are on no tier any more."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import TierError
from dicomfs.index.writer import CatalogWriter
from dicomfs.model import InstanceId, ObjectKey, is_header_pack
from dicomfs.packing import together
from dicomfs.packs import PackSource
from dicomfs.recovery import recover
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import contents, digests, import_and_pack, rows, write_sources
from tests.tiered import FILES, LABORATORY, copied, copy_all, evict_all

GONE, KEPT = FILES[:2], FILES[2:]
"""Slices of one series, and what is packed with them: the rest of it, its study, another patient."""


@pytest.fixture(params=[(True, None), (False, None), (True, "dense")], ids=["plain", "encrypted", "twins"])
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Archive]:
    """Two patients, packed together and copied to the laboratory."""
    plain, packing = request.param
    with copied(tmp_path, plain=plain, packing=packing) as made:
        assert any(one.twin_of for one in made.catalog.objects()) == (packing is not None)
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Archive]:
    with copied(tmp_path) as made:
        yield made


def of(archive: Archive, files: list[bytes]) -> list[InstanceId]:
    wanted = {hashlib.sha256(data).digest()[:8] for data in files}
    return [row.id for _, row in rows(archive) if row.sha256_start in wanted]


def forget(archive: Archive, files: list[bytes]) -> set[InstanceId]:
    """Forget instances; returns their ids."""
    gone = of(archive, files)
    assert len(gone) == len(files)
    archive.decisions().forget(gone, "asked to")
    assert contents(archive) == digests(FILES) - digests(files)
    return set(gone)


def lie_there(archive: Archive, gone: set[InstanceId]) -> dict[str, list[ObjectKey]]:
    """Header packs with rows of these instances, and packs that those rows have pieces in, on each tier."""
    found: dict[str, list[ObjectKey]] = {}
    for name in archive.tiers.names:
        tier = archive.tiers[name]
        source = PackSource(tier)
        for key, _ in list(tier.list("header")):
            for index in range(len(source.headers(key).parts)):
                part = source.part(key, index)
                if any(InstanceId(part.series.number, one.position) in gone for one in part.entries):
                    found.setdefault(name, []).append(key)
    return found


def objects_on(archive: Archive) -> dict[str, set[ObjectKey]]:
    kinds = ("pixel", "burned", "opaque", "header", "text")
    return {
        name: {key for kind in kinds for key, _ in archive.tiers[name].list(kind)}
        for name in archive.tiers.names
    }


def check(archive: Archive, kept: set[str]) -> None:
    assert contents(archive) == kept
    found = archive.verify(deep=True)
    assert (found.problems, found.notes) == ([], [])
    assert archive.catalog.tainted() == set()


def test_others_are_packed_again_and_the_old_packs_destroyed_everywhere(archive: Archive) -> None:
    before = objects_on(archive)
    gone = forget(archive, GONE)
    shared = archive.catalog.tainted()
    assert {is_header_pack(key) for key in shared} == {True, False}
    assert set(lie_there(archive, gone)) == set(archive.tiers.names)
    report = archive.purger().purge()
    assert report.left == []
    assert report.parts > 0
    assert lie_there(archive, gone) == {}
    after = objects_on(archive)
    for name in archive.tiers.names:
        assert not after[name] & shared
        assert after[name] == {one.key for one in archive.catalog.objects() if name in one.tiers}
        assert after[name] != before[name]
    check(archive, digests(KEPT))
    again = archive.purger().purge()
    assert (again.parts, again.destroyed) == (0, 0)


def test_packs_that_only_a_link_keeps_are_packed_again_too(plain: Archive, tmp_path: Path) -> None:
    # The same frames under other headers, of another patient, accepted later.
    twins = samples.ct_series(4, 48, 48, patient="Twin^Patient")
    plain.import_paths([write_sources(tmp_path / "twins", twins)])
    plain.pack()
    copy_all(plain)
    plain.decisions().forget(of(plain, [*FILES, *twins[2:]]), "")
    kept = digests(twins[:2])
    assert contents(plain) == kept
    shared = plain.catalog.tainted()
    assert shared
    assert plain.purger().purge().left == []
    for found in objects_on(plain).values():
        assert not found & shared
    check(plain, kept)


def test_what_is_packed_together_before_gc_is_destroyed_everywhere_too(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "DEPOSITS", 3)
    files = samples.ct_series(6, 24, 24, 9, patient="Late^Patient")
    for turn in (0, 2):
        import_and_pack(archive, tmp_path / f"late{turn}", files[turn : turn + 2])
    copy_all(archive)
    gone = set(of(archive, files[:1]))
    archive.decisions().forget(gone, "asked to")
    shared = archive.catalog.tainted()
    assert set(lie_there(archive, gone)) == set(archive.tiers.names)
    assert import_and_pack(archive, tmp_path / "late4", files[4:]) == 3
    assert archive.collector().collect().deleted == 2 * len(shared)
    assert lie_there(archive, gone) == {}
    for found in objects_on(archive).values():
        assert not found & shared
    assert archive.purger().purge().left == []
    assert archive.collector().collect(now_ns=2**62).failed == []
    check(archive, digests([*FILES, *files[1:]]))


def test_nothing_new_refers_to_what_is_to_be_purged(plain: Archive, tmp_path: Path) -> None:
    shared = forget(plain, GONE) and plain.catalog.tainted()
    # Frames that are in a pack which has to go, of another patient.
    copies = samples.ct_series(4, 48, 48, patient="Twin^Patient")[2:]
    import_and_pack(plain, tmp_path / "copies", copies)
    (series,) = {one.series for one in of(plain, copies)}
    assert all(shared.isdisjoint(needed) for needed in plain.catalog.needs(series).values())
    assert plain.purger().purge().left == []
    check(plain, digests([*KEPT, *copies]))


def test_what_lies_elsewhere_only_is_packed_again_and_goes_back_there(archive: Archive) -> None:
    evict_all(archive)
    gone = forget(archive, GONE)
    assert archive.purger().purge().left == []
    assert lie_there(archive, gone) == {}
    assert all(LABORATORY in one.tiers for one in archive.catalog.held())
    check(archive, digests(KEPT))


def test_a_tier_that_is_away_is_told_and_done_by_the_next_gc(
    plain: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = forget(plain, GONE)
    delete = FolderTier.delete

    def away(tier: FolderTier, key: ObjectKey) -> None:
        if tier.name == LABORATORY:
            raise TierError(LABORATORY, key, "not now")
        delete(tier, key)

    with monkeypatch.context() as patched:
        patched.setattr(FolderTier, "delete", away)
        report = plain.purger().purge()
    assert report.parts > 0
    assert set(lie_there(plain, gone)) == {LABORATORY}
    plain.collector().collect()
    assert lie_there(plain, gone) == {}
    check(plain, digests(KEPT))


@pytest.mark.parametrize("at", range(1, 5))
def test_killed_between_commits_the_next_run_ends_it(
    plain: Archive, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    class Killed(BaseException):
        pass

    gone = forget(plain, GONE)
    finish, commits = CatalogWriter.finish, iter(range(100))

    def counted(writer: CatalogWriter) -> None:
        if next(commits) == at:
            raise Killed
        finish(writer)

    with monkeypatch.context() as patched:
        patched.setattr(CatalogWriter, "finish", counted)
        with pytest.raises(Killed):
            plain.purger().purge()
    with Archive.open(plain.paths.root) as again:
        assert contents(again) == digests(KEPT)
        again.collector().collect()
        assert again.purger().purge().left == []
        assert lie_there(again, gone) == {}
        copy_all(again)
        check(again, digests(KEPT))


def test_an_index_that_was_made_again_knows_what_to_purge(plain: Archive) -> None:
    gone = forget(plain, GONE)
    plain.close()
    recover(plain.paths.root, (plain.paths.root / "local").as_uri())
    with Archive.open(plain.paths.root) as again:
        assert again.purger().purge().left == []
        assert lie_there(again, gone) == {}
        check(again, digests(KEPT))


def test_without_room_it_is_told_and_nothing_changes(plain: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(plain, GONE)
    with monkeypatch.context() as patched:
        patched.setattr("dicomfs.packer._ROOM", 1 << 40)
        report = plain.purger().purge()
    assert report.parts == 0
    assert all("are needed to pack it again" in reason for _, reason in report.left)
    assert plain.catalog.tainted()
    assert contents(plain) == digests(KEPT)


def test_stopped_it_says_so(plain: Archive) -> None:
    forget(plain, GONE)
    stop = threading.Event()
    stop.set()
    report = plain.purger().purge(stop)
    assert (report.stopped, report.parts) == (True, 0)


def test_forgotten_files_that_nobody_shares_leave_nothing_to_purge(plain: Archive) -> None:
    forget(plain, FILES)
    assert plain.catalog.tainted() == set()


@pytest.mark.parametrize("whole", [True, False], ids=["a patient", "an instance"])
def test_purging_ends_where_the_same_objects_come_out_again(tmp_path: Path, whole: bool) -> None:
    protocol = samples.protocol("scanner")
    with Archive.create(tmp_path / "archive") as archive:
        for name in ("First", "Second"):
            folder = write_sources(tmp_path / name, samples.long_headers(f"{name}^Patient", protocol))
            archive.import_paths([folder])
            archive.pack()
        before = contents(archive)
        first = [row.id for (folder, *_), row in rows(archive) if "First" in folder]
        archive.decisions().forget(first if whole else first[:1], "")
        assert archive.catalog.tainted()
        assert archive.purger().purge().left == []
        kept = contents(archive)
        assert kept < before
        check(archive, kept)
        again = archive.purger().purge()
        assert (again.parts, again.destroyed) == (0, 0)


def test_a_recovered_index_knows_what_is_to_be_purged(plain: Archive, tmp_path: Path) -> None:
    """Where no header pack says so any more, too: what others link to holds a frame more than they need."""
    twins = samples.ct_series(4, 48, 48, patient="Twin^Patient")[1:]
    plain.import_paths([write_sources(tmp_path / "twins", twins)])
    plain.pack()
    copy_all(plain)
    plain.decisions().forget(of(plain, FILES), "")
    shared = plain.catalog.tainted()
    assert shared
    root = plain.paths.root
    plain.close()
    assert recover(root, (root / "local").as_uri()).problems == []
    with Archive.open(root) as archive:
        assert archive.catalog.tainted() >= shared
        assert archive.purger().purge().left == []
        for found in objects_on(archive).values():
            assert not found & shared
        check(archive, digests(twins))
