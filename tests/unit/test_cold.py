"""Archives whose far tier is a cold storage class: listed, told of, restored once, then read exactly."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dicomfs import restores
from dicomfs.archive import Archive
from dicomfs.errors import ObjectCold
from dicomfs.model import InstanceId
from dicomfs.progress import NullProgress
from tests import samples
from tests.archives import contents, digests, readable, rows
from tests.cold_tier import ColdTier, freeze
from tests.tiered import EXTERNAL, FILES, LABORATORY, copy_all, evict_all, three_tiers

NEAR = digests([samples.structured_report()])
"""What is in header packs only: those are never cold."""


def bulky(archive: Archive) -> list[InstanceId]:
    """Instances that need more than their header pack."""
    found = [row.id for _, row in rows(archive)]
    return [one for one in found if len(archive.residency.objects(one)) > 1]


@pytest.fixture
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restores, "LOOK_SECONDS", 0.0)


def far(tmp_path: Path) -> tuple[Archive, ColdTier]:
    """An archive whose objects are on a cold tier only."""
    archive = three_tiers(tmp_path)
    copy_all(archive)
    evict_all(archive)
    return archive, freeze(archive, LABORATORY)


@pytest.mark.usefixtures("_look_at_once")
def test_reading_begins_one_restore_for_each_object_and_succeeds_when_it_is_done(tmp_path: Path) -> None:
    archive, cold = far(tmp_path)
    with archive:
        sizes = sorted(row.size for _, row in rows(archive))
        assert sizes == sorted(map(len, FILES))
        for _ in range(2):
            assert readable(archive) == (NEAR, len(FILES) - len(NEAR))
        bulk = {one.key for one in archive.catalog.objects() if not one.key.startswith("header/")}
        assert sorted(cold.asked) == sorted(bulk)
        cold.thaw()
        assert contents(archive) == digests(FILES)


def test_what_is_cold_is_told_without_a_restore(tmp_path: Path) -> None:
    archive, cold = far(tmp_path)
    with archive:
        instances = bulky(archive)
        assert {archive.residency.of(one)["residency"] for one in instances} == {"cold"}
        assert {archive.residency.of(one)["tier"] for one in instances} == {LABORATORY}
        assert cold.asked == []
        with pytest.raises(ObjectCold, match="a restore is under way"):
            archive.reconstructor.open(instances[0])
        assert archive.residency.of(instances[0])["residency"] == "restoring"
        cold.frozen = False
        assert archive.residency.of(instances[0])["residency"] == LABORATORY


def test_a_copy_that_is_not_cold_is_read_instead(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        copy_all(archive)
        cold = freeze(archive, LABORATORY)
        assert contents(archive) == digests(FILES)
        assert cold.asked == []


@pytest.mark.usefixtures("_look_at_once")
def test_what_was_restored_is_promoted_when_it_is_read(tmp_path: Path) -> None:
    archive, cold = far(tmp_path)
    with archive:
        archive.promote_what_is_read()
        first = bulky(archive)[0]
        with pytest.raises(ObjectCold, match="a restore is under way"):
            archive.reconstructor.open(first)
        cold.thaw()
        archive.reconstructor.open(first).read(0, 1)
        end = time.monotonic() + 60
        while not set(cold.asked) <= {one.key for one in archive.catalog.objects() if "local" in one.tiers}:
            assert time.monotonic() < end, "not promoted"
            time.sleep(0.02)


def test_warming_begins_restores_and_waiting_brings_all(tmp_path: Path) -> None:
    archive, cold = far(tmp_path)
    with archive:
        tiering = archive.tiering()
        report = tiering.warm(tiering.objects(), NullProgress())
        bulk = {one.key for one in tiering.objects() if not one.key.startswith("header/")}
        assert {one.key for one in report.cold} == bulk == set(cold.asked)
        assert report.failed == []
        stop = threading.Event()
        thaw = threading.Timer(0.2, cold.thaw)
        thaw.start()
        tiering.wait_for_cold(report, NullProgress(), stop, 0.05)
        thaw.join()
        assert (report.cold, report.failed, report.stopped) == ([], [], False)
        assert len(cold.asked) == len(bulk)
        assert all("local" in one.tiers for one in archive.catalog.objects())
        assert contents(archive) == digests(FILES)


def test_waiting_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    archive, _ = far(tmp_path)
    with archive:
        tiering = archive.tiering()
        report = tiering.warm(tiering.objects(), NullProgress())
        stop = threading.Event()
        stop.set()
        tiering.wait_for_cold(report, NullProgress(), stop, 60)
        assert report.stopped
        assert report.cold


def test_a_tier_that_is_cold_from_the_start_is_copied_to_without_reading_back(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        cold = freeze(archive, LABORATORY)
        report = copy_all(archive)
        assert (report.failed, report.cold) == ([], [])
        evict_all(archive)
        assert cold.asked == []
        assert readable(archive) == (NEAR, len(FILES) - len(NEAR))


def test_a_nearer_tier_that_is_down_is_waited_for_and_no_restore_is_paid(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        copy_all(archive)
        copy_all(archive, EXTERNAL)
        evict_all(archive)
        cold = freeze(archive, EXTERNAL)
        (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
        assert readable(archive) == (NEAR, len(FILES) - len(NEAR))
        assert cold.asked == []
        (tmp_path / "unmounted").rename(tmp_path / LABORATORY)
        assert contents(archive) == digests(FILES)
