"""Scrubbing reads every copy in turn within a budget; bad ones are replaced, unreachable ones no damage."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.scrubbing import Budget, Scrubber, ScrubReport
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.folder import FolderTier
from tests.archives import contents, digests, flip, objects
from tests.tiered import FILES, LABORATORY, copy_of, evict_all


@pytest.fixture
def archive(tmp_path: Path, tiered_archives: dict[bool, Path]) -> Iterator[Archive]:
    """Two patients, packed and copied to the laboratory in plain bytes."""
    with copy_of(tiered_archives[True], tmp_path / "top") as made:
        yield made


def scrub(archive: Archive, budget: Budget | None = None, **named: object) -> ScrubReport:
    return archive.scrubber().scrub(budget or Budget(), NullProgress(), **named)  # type: ignore[arg-type]


def journal(archive: Archive, *, everywhere: bool, heal: bool = True) -> ScrubReport:
    report = ScrubReport()
    archive.scrubber().scrub_journal(report, everywhere=everywhere, heal=heal)
    return report


def far(archive: Archive, key: str) -> Path:
    """Where an object lies in the laboratory."""
    return archive.paths.root.parent / LABORATORY / key


def verified(archive: Archive) -> dict[tuple[str, str], int]:
    return {(r.key, t): when for r in archive.catalog.objects() for t, when in r.tiers.items()}


def test_every_copy_is_read_and_noted(archive: Archive) -> None:
    before = verified(archive)
    report = scrub(archive)
    assert (report.copies, report.healed, report.damaged, report.left) == (len(before), [], [], 0)
    assert report.bytes == sum(r.size * len(r.tiers) for r in archive.catalog.objects())
    assert all(when > before[copy] for copy, when in verified(archive).items())


def test_runs_within_a_budget_take_turns_and_reach_all(archive: Archive) -> None:
    first = verified(archive)
    seen: set[tuple[str, str]] = set()
    for _ in range(2 * len(first)):
        before = verified(archive)
        report = scrub(archive, Budget(bytes=1))
        assert (report.copies, report.left) == (1, len(first) - 1)
        (read,) = {copy for copy, when in verified(archive).items() if when != before[copy]}
        oldest = min(before.values())
        assert before[read] == oldest
        seen.add(read)
    assert seen == first.keys()


def test_a_budget_of_time_ends_a_run(archive: Archive) -> None:
    ticks = iter(range(0, 10_000, 100))
    scrubber = Scrubber(
        archive.catalog, archive.tiers, archive.copies, archive.archive_id, lambda: next(ticks)
    )
    report = scrubber.scrub(Budget(seconds=250), NullProgress())
    assert report.copies == 2
    assert report.left == len(verified(archive)) - 2


def test_a_run_can_be_stopped_and_one_tier_chosen(archive: Archive) -> None:
    stop = threading.Event()
    stop.set()
    assert (scrub(archive, stop=stop).copies, scrub(archive, stop=stop).stopped) == (0, True)
    before = verified(archive)
    scrub(archive, tier=LABORATORY)
    assert {tier for (_, tier), when in verified(archive).items() if when != before[_, tier]} == {LABORATORY}


@pytest.mark.parametrize("kind", ["pixel", "header", "opaque"])
@pytest.mark.parametrize("tier", ["local", LABORATORY])
@pytest.mark.parametrize("harm", ["flipped", "missing", "truncated"])
def test_a_bad_copy_is_replaced_from_the_other_tier(
    archive: Archive, kind: str, tier: str, harm: str
) -> None:
    near = objects(archive, kind)[0]
    key = str(near.relative_to(archive.paths.local_tier))
    path = near if tier == "local" else far(archive, key)
    sound = path.read_bytes()
    if harm == "flipped":
        flip(path, 70)
    elif harm == "missing":
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_bytes(sound[:-1])
    told = scrub(archive, heal=False)
    assert [(name, found) for name, found, _ in told.damaged] == [(tier, key)]
    report = scrub(archive)
    assert (report.healed, report.damaged) == ([(tier, key)], [])
    assert path.read_bytes() == sound
    assert scrub(archive).healed == []
    assert contents(archive) == digests(FILES)


def test_a_copy_that_nobody_knows_of_heals_the_last_one(archive: Archive) -> None:
    """An eviction that died left it there."""
    (key,) = [r.key for r in archive.catalog.objects() if r.key.startswith("header/")]
    with archive.catalog.write() as writer:
        writer.remove_placement(key, "local")
    flip(far(archive, key), 70)
    assert scrub(archive).healed == [(LABORATORY, key)]
    assert set(archive.catalog.object(key).tiers) == {"local", LABORATORY}


def test_what_is_bad_everywhere_is_told_and_stays(archive: Archive) -> None:
    near = objects(archive, "pixel")[0]
    key = str(near.relative_to(archive.paths.local_tier))
    flip(near, 70)
    flip(far(archive, key), 90)
    report = scrub(archive)
    assert sorted(tier for tier, _, _ in report.damaged) == [LABORATORY, "local"]
    assert near.exists()
    assert far(archive, key).exists()


def test_an_unmounted_tier_is_told_and_no_damage(archive: Archive) -> None:
    folder = archive.paths.root.parent / LABORATORY
    folder.rename(folder.with_name("unmounted"))
    report = scrub(archive)
    assert (list(report.unreachable), report.damaged, report.healed) == ([LABORATORY], [], [])
    assert report.copies == len(list(archive.catalog.objects()))
    assert journal(archive, everywhere=True).unreachable.keys() == {LABORATORY}


def test_a_bad_sector_is_damage(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    near = objects(archive, "pixel")[0]
    key = str(near.relative_to(archive.paths.local_tier))
    before = FolderTier.get_range
    read: list[ObjectKey] = []

    def get_range(self: FolderTier, asked: ObjectKey, wanted: ByteRange) -> bytes:
        if self.name == "local" and asked == key and not read:
            read.append(asked)
            raise TierError("local", asked, "Input/output error")
        return before(self, asked, wanted)

    monkeypatch.setattr(FolderTier, "get_range", get_range)
    assert scrub(archive, tier="local").healed == [("local", key)]


def test_what_is_moved_while_it_is_read_is_no_damage(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = Scrubber._due

    def late(self: Scrubber, *args: object) -> object:
        found = due(self, *args)  # type: ignore[arg-type]
        evict_all(archive)
        return found

    monkeypatch.setattr(Scrubber, "_due", late)
    report = scrub(archive)
    assert (report.damaged, report.healed) == ([], [])
    assert contents(archive) == digests(FILES)


@pytest.mark.parametrize("tier", ["local", LABORATORY])
@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_the_journal_is_mended(archive: Archive, tier: str, harm: str) -> None:
    near = objects(archive, "journal")[0]
    key = str(near.relative_to(archive.paths.local_tier))
    path = near if tier == "local" else far(archive, key)
    sound = path.read_bytes()
    path.unlink() if harm == "missing" else flip(path, 70)
    assert len(journal(archive, everywhere=True, heal=False).damaged) == 1
    report = journal(archive, everywhere=harm == "flipped")
    assert (report.healed, report.damaged) == ([(tier, key)], [])
    assert path.read_bytes() == sound


def test_journals_that_differ_are_told(archive: Archive) -> None:
    one, other = objects(archive, "journal")[:2]
    path = far(archive, str(one.relative_to(archive.paths.local_tier)))
    path.chmod(0o600)
    shutil.copy(other, path)
    assert [tier for tier, *_ in journal(archive, everywhere=True, heal=False).damaged] == [LABORATORY]


def test_verify_tells_a_tier_that_cannot_be_asked_from_damage(archive: Archive) -> None:
    evict_all(archive)
    folder = archive.paths.root.parent / LABORATORY
    archive.close()
    folder.rename(folder.with_name("unmounted"))
    with Archive.open(archive.paths.root) as blind:
        for deep in (False, True):
            report = blind.verify(deep=deep)
            assert report.problems == []
            assert list(report.unreachable) == [LABORATORY]
            assert report.unchecked == len(list(blind.catalog.objects())) + len(FILES)
    folder.with_name("unmounted").rename(folder)
    with Archive.open(archive.paths.root) as again:
        report = again.verify(deep=True)
        assert (report.problems, report.unreachable, report.unchecked) == ([], {}, 0)


def test_verify_proves_placements_on_every_tier(archive: Archive) -> None:
    near = objects(archive, "pixel")[0]
    key = str(near.relative_to(archive.paths.local_tier))
    far(archive, key).unlink()
    (problem,) = archive.verify().problems
    assert f"tier {LABORATORY}: {key}: no such object" in problem


def test_verify_counts_who_needs_what(archive: Archive) -> None:
    (header,) = [r.key for r in archive.catalog.objects() if r.key.startswith("header/")]
    with archive.catalog.write() as writer:
        writer.set_references(header, archive.catalog.references(header)[1:])
    assert any("packs, " in problem for problem in archive.verify().problems)


def test_verify_notes_what_nothing_refers_to_on_any_tier(archive: Archive) -> None:
    (key, *_) = [r.key for r in archive.catalog.objects()]
    with archive.catalog.write() as writer:
        writer.remove_placement(key, LABORATORY)
    report = archive.verify()
    assert (report.problems, report.notes) == ([], [f"tier {LABORATORY}: {key}: not referred to"])


def test_a_bad_snapshot_is_told_and_removed(archive: Archive) -> None:
    key = archive.snapshots().make(NullProgress()).key
    assert key is not None
    assert archive.verify(deep=True).notes == []
    flip(far(archive, key), 300)
    scrubber = archive.scrubber()
    for heal in (False, True):
        report = ScrubReport()
        scrubber.scrub_snapshots(report, heal=heal)
        assert [(tier, found) for tier, found, _ in report.damaged] == [(LABORATORY, key)]
        assert far(archive, key).exists() != heal
    report = ScrubReport()
    scrubber.scrub_snapshots(report)
    assert report == ScrubReport()
    assert (archive.paths.local_tier / key).exists()


@pytest.mark.parametrize("kind", ["pixel", "header", "opaque"])
def test_verify_tells_a_bad_copy_before_reading_replaces_it(archive: Archive, kind: str) -> None:
    near = objects(archive, kind)[0]
    flip(near, near.stat().st_size - 20)
    assert any("do not match its name" in problem for problem in archive.verify(deep=True).problems)
