"""Applying rules: what moves, what a tier that is down changes, watermarks, pins and times of day."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import CatalogBusy
from dicomfs.lifecycle_runs import ApplyReport, until_end_of_window
from dicomfs.model import ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from tests.archives import contents, digests, objects, rows
from tests.tiered import EXTERNAL, FILES, LABORATORY, copy_all, evict_all, three_tiers, write_settings

HAND_ON = {
    "local": "keep_days = 0",
    LABORATORY: "copy_after_days = 0",
    EXTERNAL: "copy_after_days = 0",
}
"""Everything leaves the local tier at once."""


def apply(archive: Archive) -> ApplyReport:
    report = archive.lifecycle.apply(NullProgress())
    assert not report.stopped
    return report


def on(archive: Archive, tier: str) -> set[ObjectKey]:
    return {record.key for record in archive.catalog.objects() if tier in record.tiers}


def headers(archive: Archive) -> set[ObjectKey]:
    return {key for key in everything(archive) if key.startswith("header/")}


def everything(archive: Archive) -> set[ObjectKey]:
    return {record.key for record in archive.catalog.objects()}


def test_objects_are_copied_then_evicted_and_header_packs_stay(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers=HAND_ON) as archive:
        planned, problems = archive.lifecycle.plan()
        assert problems == []
        assert on(archive, EXTERNAL) == set()
        report = apply(archive)
        assert report.problems == []
        assert {one.key for one in planned.copies if one.tier == EXTERNAL} == everything(archive)
        assert {one.key for one in planned.evictions} == everything(archive) - headers(archive)
        assert on(archive, LABORATORY) == on(archive, EXTERNAL) == everything(archive)
        assert on(archive, "local") == headers(archive)
        assert report.copied[EXTERNAL].journal == len(objects(archive, "journal"))
        assert contents(archive) == digests(FILES)
        again = apply(archive)
        assert (again.copied, again.evicted, again.failed) == ({}, {}, False)


def test_without_rules_nothing_moves_and_the_journal_is_shipped_where_objects_are(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        assert apply(archive) == ApplyReport()
        copy_all(archive)
        shutil.rmtree(tmp_path / LABORATORY / "journal")
        report = apply(archive)
        assert report.shipped == {LABORATORY: len(objects(archive, "journal"))}
        assert (report.copied, report.evicted) == ({}, {})


def test_a_tier_that_is_down_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers=HAND_ON) as archive:
        (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
        report = apply(archive)
        assert report.failed
        assert {tier for tier, _ in report.problems} == {LABORATORY}
        assert on(archive, EXTERNAL) == everything(archive)
        assert not (tmp_path / LABORATORY).exists()
        (tmp_path / "unmounted").rename(tmp_path / LABORATORY)
    with Archive.open(tmp_path / "archive") as archive:
        assert not apply(archive).failed
        assert on(archive, LABORATORY) == everything(archive)


def test_as_many_copies_as_are_wanted_stay(tmp_path: Path) -> None:
    tiers = {"local": "keep_days = 0", EXTERNAL: "copy_after_days = 0"}
    with three_tiers(tmp_path, "[lifecycle]\nminimum_copies = 2", tiers) as archive:
        report = apply(archive)
        assert report.evicted == {}
        assert on(archive, "local") == everything(archive)
        assert evict_all(archive).objects == 0
        copy_all(archive)
        assert apply(archive).evicted["local"].objects == len(everything(archive) - headers(archive))


def test_what_is_pinned_stays_and_is_brought_back_and_pins_outlive_the_index(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers=HAND_ON) as archive:
        pinned, other = (rows(archive)[place][1].id for place in (0, -1))
        assert pinned.series != other.series
        assert archive.pins.pin([pinned.series]) == 1
        assert archive.pins.pin([pinned.series]) == 0
        needed = archive.pins.objects()
        apply(archive)
        assert on(archive, "local") == headers(archive) | needed
        assert {key for key, reason in evict_all(archive).kept if "pinned" in reason} == needed
        archive.pins.unpin([pinned.series])
        evict_all(archive)
        assert on(archive, "local") == set()
        archive.pins.pin([pinned.series, other.series])
        archive.pins.unpin([other.series])
        apply(archive)
        assert on(archive, "local") == needed
    shutil.rmtree(tmp_path / "archive" / "index")
    recover(tmp_path / "archive", (tmp_path / "archive" / "local").as_uri())
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.catalog.pinned_series() == {pinned.series}


def test_above_the_high_watermark_what_was_not_read_for_longest_leaves(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        copy_all(archive)
        sizes = {record.key: record.size for record in archive.catalog.objects()}
        bulk = sorted(everything(archive) - headers(archive))
        with archive.catalog.write() as writer:
            writer.note_used({key: 10**18 + order for order, key in enumerate(bulk)})
        used = archive.catalog.used()
        assert sorted(bulk, key=used.__getitem__) == bulk
    high, low = sum(sizes.values()) - 1, sum(sizes.values()) - sizes[bulk[0]]
    write_settings(tmp_path, tiers={"local": f"high_watermark = {high}\nlow_watermark = {low}"})
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.lifecycle.is_full()
        assert not archive.lifecycle.take_room(1)
        report = archive.lifecycle.apply(NullProgress(), copies=False)
        assert everything(archive) - on(archive, "local") <= set(bulk)
        assert sum(sizes[key] for key in on(archive, "local")) <= low
        assert report.above == {}
        assert not archive.lifecycle.is_full()


def test_the_room_below_the_watermark_is_given_out_once(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers={"local": "high_watermark = 10000000"}) as archive:
        room = 10_000_000 - sum(record.size for record in archive.catalog.objects())
        assert archive.lifecycle.take_room(room - 10)
        assert not archive.lifecycle.take_room(11)
        assert archive.lifecycle.take_room(10)


def test_a_share_of_the_disk_is_a_watermark_and_what_cannot_leave_is_told(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers={"local": "high_watermark = '0%'"}) as archive:
        assert archive.lifecycle.is_full()
        report = apply(archive)
        assert report.above["local"] > 0
        assert on(archive, "local") == everything(archive)


def test_one_process_at_a_time_applies_rules(tmp_path: Path) -> None:
    with (
        three_tiers(tmp_path) as archive,
        archive.applying_rules(),
        pytest.raises(CatalogBusy, match="applying the rules"),
        archive.applying_rules(),
    ):
        pass


def test_a_mount_is_told_when_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with three_tiers(tmp_path, "[lifecycle]\ninterval_minutes = 10") as archive:
        now = 0.0
        lifecycle = archive.lifecycle
        monkeypatch.setattr(lifecycle, "_clock", lambda: now)
        assert lifecycle.is_due()
        assert not lifecycle.is_due()
        now = 599.0
        assert not lifecycle.is_due()
        monkeypatch.setattr(lifecycle, "is_full", lambda: True)
        assert lifecycle.is_due()
        assert not lifecycle.is_due()
        now = 601.0
        assert lifecycle.is_due()
    with Archive.create(tmp_path / "alone") as archive:
        assert not archive.lifecycle.is_due()


@pytest.mark.parametrize(
    "schedule,hour,left",
    [
        ([], 12, 24.0),
        (["22:00-06:00"], 12, None),
        (["22:00-06:00"], 22, 8.0),
        (["22:00-06:00"], 5, 1.0),
        (["22:00-06:00"], 6, None),
        (["12:00-13:30"], 13, 0.5),
        (["12:00-13:00", "13:00-14:00"], 12, 2.0),
        (["00:00-24:00"], 12, 24.0),
        (["06:00-18:00", "18:00-06:00"], 7, 24.0),
    ],
)
def test_a_schedule_says_how_long_may_be_moved(schedule: list[str], hour: int, left: float | None) -> None:
    found = until_end_of_window(schedule, datetime(2024, 3, 1, hour))
    assert found == (None if left is None else timedelta(hours=left))
