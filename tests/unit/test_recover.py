"""Recovering: the same names and numbers from packs, journal and spool; what is lost is listed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import CatalogBusy, UsageError
from dicomfs.index.writer import CatalogWriter
from dicomfs.recover import RecoverReport
from dicomfs.recovery import recover
from tests import samples
from tests.archives import (
    contents,
    digests,
    flip,
    node_numbers,
    numbers,
    objects,
    overwrite,
    read_whole,
    readable,
    rows,
    tree,
    write_sources,
)

(FIRST,) = samples.ct_series(1, 16, 16, patient="Conflict^Patient")
VERSIONS = [
    FIRST.replace(b"Head routine", text) for text in (b"Head Routine", b"HEAD routine", b"head routine")
]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


@pytest.fixture
def filled(archive: Archive, tmp_path: Path) -> Archive:
    """Several patients, several packs, conflicts, and some that still wait in the spool."""
    batches = [
        [*samples.ct_series(4, 16, 16), samples.structured_report()],
        [*samples.ct_series(3, 16, 16, 1, patient="Other^Patient"), FIRST],
        [samples.enhanced_mr(), VERSIONS[0]],
        [samples.encapsulated([b"\xff\xd8x\xff\xd9"]), VERSIONS[1]],
        [*samples.ct_series(6, 16, 16)[4:], *samples.ct_series(2, 16, 16, 7, patient="Late^Patient")],
    ]
    for turn, files in enumerate(batches):
        archive.import_paths([write_sources(tmp_path / f"in{turn}", files)])
        if turn < 4:
            archive.pack()
    return archive


def recovered(archive: Archive) -> RecoverReport:
    """Rebuild the index of an archive in place."""
    archive.close()
    return recover(archive.paths.root, archive.paths.local_tier.as_uri())


def test_the_same_tree_names_numbers_and_bytes_come_back_in_place(filled: Archive) -> None:
    before = tree(filled), numbers(filled), node_numbers(filled), contents(filled)
    report = recovered(filled)
    assert (report.problems, report.instances, report.spooled) == ([], len(before[0]), 4)
    with Archive.open(filled.paths.root) as again:
        assert (tree(again), numbers(again), node_numbers(again), contents(again)) == before
        assert again.verify(deep=True).problems == []
        again.pack()
        assert (tree(again), numbers(again), contents(again)) == (before[0], before[1], before[3])


def test_the_same_packed_tree_comes_back_in_a_new_folder(filled: Archive, tmp_path: Path) -> None:
    filled.pack()
    before = tree(filled), numbers(filled), node_numbers(filled), contents(filled)
    report = recover(tmp_path / "copy", filled.paths.local_tier.as_uri())
    assert report.problems == []
    shutil.rmtree(filled.paths.root)
    with Archive.open(tmp_path / "copy") as copy:
        assert (tree(copy), numbers(copy), node_numbers(copy), contents(copy)) == before
        assert copy.archive_id == filled.archive_id
        assert copy.verify(deep=True).problems == []


def test_recovering_twice_gives_the_same(filled: Archive) -> None:
    before = numbers(filled)
    for _ in range(2):
        assert recovered(filled).problems == []
    with Archive.open(filled.paths.root) as again:
        assert numbers(again) == before


def test_numbers_go_on_above_all_that_were_given_out(filled: Archive, tmp_path: Path) -> None:
    before = {instance for instance, _ in numbers(filled).values()}
    nodes = {number for _, number in node_numbers(filled)}
    recovered(filled)
    with Archive.open(filled.paths.root) as again:
        again.import_paths(
            [
                write_sources(
                    tmp_path / "more",
                    [samples.ct_series(7, 16, 16)[6], samples.structured_report("New^Patient")],
                )
            ]
        )
        after = {instance for instance, _ in numbers(again).values()}
        assert before < after
        assert len(after - before) == 2
        new_nodes = {number for _, number in node_numbers(again)} - nodes
        assert all(number > max(nodes) for number in new_nodes)


@pytest.mark.parametrize("seed", range(6))
def test_with_half_of_the_objects_missing_what_is_left_comes_back(filled: Archive, seed: int) -> None:
    filled.pack()
    before, whole = numbers(filled), contents(filled)
    places = objects(filled)
    for path in random.Random(seed).sample(places, len(places) // 2):
        path.unlink()
    report = recovered(filled)
    with Archive.open(filled.paths.root) as again:
        after = numbers(again)
        # A version whose winner is lost is shown again, under the name that both have.
        known = {(place[:4], value) for place, value in before.items()}
        assert {(place[:4], value) for place, value in after.items()} <= known
        tree(again)
        good, failed = readable(again)
        assert good <= whole
        assert len(good) + failed == len(after)
        assert not failed or report.problems
        again.verify(deep=True)


def test_a_damaged_header_pack_is_listed_and_the_rest_comes_back(filled: Archive) -> None:
    filled.pack()
    before = numbers(filled)
    victim = objects(filled, "header")[1]
    overwrite(victim, victim.read_bytes()[:-40])
    report = recovered(filled)
    assert any(victim.name in problem for problem in report.problems)
    with Archive.open(filled.paths.root) as again:
        after = numbers(again)
        assert 0 < len(after) < len(before)
        assert {(p[:4], v) for p, v in after.items()} <= {(p[:4], v) for p, v in before.items()}
        assert readable(again)[1] == 0


def test_a_damaged_journal_object_costs_no_packed_file_and_is_listed(filled: Archive) -> None:
    filled.pack()
    whole, named = contents(filled), {place[:4] for place in tree(filled)}
    for victim in objects(filled, "journal"):
        flip(victim, victim.stat().st_size // 2)
    report = recovered(filled)
    assert len(report.problems) >= len(objects(filled, "journal"))
    with Archive.open(filled.paths.root) as again:
        assert {place[:4] for place, _ in rows(again)} == named
        assert contents(again) == whole


@pytest.mark.parametrize("lost", range(7))
def test_a_damaged_journal_object_costs_no_spooled_file(filled: Archive, tmp_path: Path, lost: int) -> None:
    before, whole = numbers(filled), contents(filled)
    for victim in objects(filled, "journal")[lost:]:
        flip(victim, victim.stat().st_size // 2)
    recovered(filled)
    with Archive.open(filled.paths.root) as again:
        assert {place[:4] for place, _ in rows(again)} == {place[:4] for place in before}
        assert contents(again) == whole
        assert again.pack().failed == []
        assert contents(again) == whole
        more = samples.structured_report("Another^Patient")
        assert again.import_paths([write_sources(tmp_path / "more", [more])]).taken == 1
        assert contents(again) == whole | digests([more])


def test_a_lost_winner_lets_the_version_before_it_be_shown_and_no_two(
    archive: Archive, tmp_path: Path
) -> None:
    for turn, data in enumerate([FIRST, *VERSIONS]):
        archive.import_paths([write_sources(tmp_path / f"in{turn}", [data])])
        archive.pack()
    headers = sorted(objects(archive, "header"), key=lambda path: path.stat().st_mtime_ns)
    assert len(headers) == 4
    headers[2].unlink()
    recovered(archive)
    with Archive.open(archive.paths.root) as again:
        shown = {place[4]: read_whole(again, row.id) for place, row in rows(again)}
        assert shown == {0: VERSIONS[2], 1: FIRST, 2: VERSIONS[0]}
        tree(again)
    objects(archive, "header")
    headers[3].unlink()
    recover(archive.paths.root, archive.paths.local_tier.as_uri())
    with Archive.open(archive.paths.root) as again:
        shown = {place[4]: read_whole(again, row.id) for place, row in rows(again)}
        assert shown == {0: VERSIONS[0], 1: FIRST}


def test_a_lost_or_damaged_document_of_the_archive_is_made_again(filled: Archive) -> None:
    before = numbers(filled)
    filled.close()
    for text in ("{", "", None):
        filled.paths.identity.unlink()
        if text is not None:
            filled.paths.identity.write_text(text)
        assert recover(filled.paths.root, filled.paths.local_tier.as_uri()).problems == []
        with Archive.open(filled.paths.root) as again:
            assert numbers(again) == before
            assert again.archive_id == filled.archive_id


def test_a_lost_index_says_what_to_do_and_recovery_does_it(filled: Archive) -> None:
    before = numbers(filled)
    filled.close()
    shutil.rmtree(filled.paths.index)
    with pytest.raises(Exception, match="recover"):
        Archive.open(filled.paths.root)
    recover(filled.paths.root, filled.paths.local_tier.as_uri())
    with Archive.open(filled.paths.root) as again:
        assert numbers(again) == before


def test_recovery_refuses_what_is_no_archive_and_what_is_another(filled: Archive, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="holds no archive"):
        recover(tmp_path / "new", empty.as_uri())
    assert not (tmp_path / "new").exists()
    Archive.create(tmp_path / "other").close()
    with pytest.raises(UsageError, match="another archive"):
        recover(tmp_path / "other", filled.paths.local_tier.as_uri())
    with pytest.raises(UsageError, match="not empty"):
        recover(tmp_path / "in0", filled.paths.local_tier.as_uri())
    assert len(list((tmp_path / "in0").iterdir())) == 5


def test_after_a_reboot_the_list_of_the_spool_is_made_again(filled: Archive) -> None:
    before, whole = numbers(filled), contents(filled)
    filled.close()
    (filled.paths.index / "boot").write_text("another")
    with Archive.open(filled.paths.root) as again:
        assert (numbers(again), contents(again)) == (before, whole)


def test_after_a_reboot_a_damaged_journal_object_keeps_no_archive_from_opening(filled: Archive) -> None:
    before, whole = numbers(filled), contents(filled)
    filled.close()
    flip(objects(filled, "journal")[0], 30)
    (filled.paths.index / "boot").write_text("another")
    with Archive.open(filled.paths.root) as again:
        assert (numbers(again), contents(again)) == (before, whole)


def test_an_index_in_use_is_not_replaced_under_its_users(filled: Archive) -> None:
    root, tier = filled.paths.root, filled.paths.local_tier.as_uri()
    with pytest.raises(CatalogBusy, match="unmount"):
        recover(root, tier)
    before = tree(filled)
    filled.close()
    assert recover(root, tier).problems == []
    with Archive.open(root) as archive:
        assert tree(archive) == before


def test_decisions_made_anew_share_a_synced_transaction(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = samples.ct_series(6, 8, 8)
    second = [data.replace(b"Head routine", b"Head Routine") for data in first]
    archive.import_paths([write_sources(tmp_path / "in", [*first, *second])])
    before = tree(archive)
    decided: list[int] = []
    set_version = CatalogWriter.set_version

    def noted(writer: CatalogWriter, *arguments: Any) -> None:
        decided.append(id(writer))
        set_version(writer, *arguments)

    monkeypatch.setattr(CatalogWriter, "set_version", noted)
    recovered(archive)
    assert len(decided) == 6
    assert len(set(decided)) == 1
    with Archive.open(archive.paths.root) as again:
        assert tree(again) == before
