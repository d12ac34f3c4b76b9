"""Packing: exact or left in the spool, whatever lies, rots or fails on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.codec import segment
from dicomfs.codec.base import CodecId, Settings
from dicomfs.codec.segment import encode_band
from dicomfs.codec.trial import Profile, choose
from dicomfs.errors import CatalogFull, CodecError, TierError, TierFull
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.packer import Packer
from dicomfs.packing import encode, plan
from dicomfs.packing.pipeline import AT_ONCE
from dicomfs.packing.seal import SPOOL_ROTTEN
from dicomfs.progress import NullProgress
from dicomfs.spool import Spool
from tests import samples
from tests.archives import contents, digests, flip, numbers, objects, readable, rows, tree, write_sources
from tests.faulty_tier import FaultyTier

SERIES = samples.ct_series(6, 16, 16)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


@pytest.fixture
def filled(archive: Archive, tmp_path: Path) -> Archive:
    archive.import_paths([write_sources(tmp_path / "in", SERIES)])
    return archive


def spooled(archive: Archive) -> list[Path]:
    return [file.path for file in archive.spool.files()]


def pack_on(archive: Archive, tier: FaultyTier) -> None:
    packer = Packer(
        archive.paths, archive.archive_id, archive.catalog, archive.spool, tier, lambda: None, ("local",)
    )
    packer.pack(Profile.FAST, 1 << 30, NullProgress())


@pytest.mark.parametrize("profile", ["fast", "dense"])
def test_packing_changes_nothing_that_is_seen_and_empties_the_spool(filled: Archive, profile: str) -> None:
    before, named = tree(filled), numbers(filled)
    report = filled.pack(profile)
    assert (report.instances, report.series, report.failed) == (6, 1, [])
    assert report.raw_bytes == sum(map(len, SERIES))
    assert 0 < report.stored_bytes < report.raw_bytes
    assert sum(report.codecs.values()) == 6
    assert spooled(filled) == []
    assert list(filled.paths.staging.iterdir()) == []
    assert (tree(filled), numbers(filled)) == (before, named)
    assert contents(filled) == digests(SERIES)
    assert filled.pack().instances == 0


def test_pixels_headers_streams_and_burned_in_samples_lie_in_different_objects(
    archive: Archive, tmp_path: Path
) -> None:
    files = {
        "ct": SERIES[0],
        "us": samples.encapsulated([b"\xff\xd8x\xff\xd9"]),
        "sc": samples.part10(
            samples.write(
                [
                    *samples.identity("Sample^Patient", 1, series="sc", modality="OT"),
                    *samples.image(8, 8, bits=8),
                    (samples.PIXEL_DATA, "OB", bytes(64)),
                ]
            )
        ),
        "sr": samples.structured_report(),
    }
    archive.import_paths([write_sources(tmp_path / "in", files)])
    archive.pack()
    kinds = {path.relative_to(archive.paths.local_tier).parts[0] for path in objects(archive)}
    assert kinds == {"pixel", "burned", "opaque", "header", "journal"}
    assert contents(archive) == digests(files)
    for path in objects(archive, "pixel"):
        assert b"Sample" not in path.read_bytes()


def test_a_codec_that_lies_about_a_frame_costs_density_and_no_byte(
    filled: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encode_band
    victim = SERIES[2][-512:]

    def lie(part: Any, *arguments: Any) -> bytes:
        raw = part.copy()
        for frame in raw:
            if victim in frame.tobytes():
                frame[7] ^= 1
        return real(raw, *arguments)

    monkeypatch.setattr(segment, "encode_band", lie)
    report = filled.pack()
    assert (report.instances, report.failed) == (6, [])
    assert report.whole.total() == 1
    assert "stored whole" in next(iter(report.whole))
    assert contents(filled) == digests(SERIES)
    assert spooled(filled) == []


def test_a_codec_that_lies_about_every_frame_leaves_every_file_whole(
    filled: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encode_band
    monkeypatch.setattr(segment, "encode_band", lambda part, *rest: real(part ^ 1, *rest))
    report = filled.pack()
    assert (report.instances, report.whole.total(), report.failed) == (6, 6, [])
    assert contents(filled) == digests(SERIES)


def test_frames_that_the_chosen_codec_refuses_are_coded_otherwise(
    filled: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encode_band

    def refuse(part: Any, layout: Any, height: int, codec: CodecId, settings: Settings) -> bytes:
        if codec is not CodecId.ZSTD:
            raise CodecError(codec.name.lower(), "refused")
        return real(part, layout, height, codec, settings)

    monkeypatch.setattr(segment, "encode_band", refuse)
    report = filled.pack()
    assert (report.whole.total(), report.failed) == (0, [])
    assert contents(filled) == digests(SERIES)


@pytest.mark.parametrize("damage", ["a bit of its pixels", "a bit of its header", "its end", "all of it"])
def test_a_rotten_spooled_file_stays_and_is_reported_and_the_rest_is_packed(
    filled: Archive, damage: str
) -> None:
    victim = spooled(filled)[3]
    if damage == "a bit of its pixels":
        flip(victim, -100)
    elif damage == "a bit of its header":
        flip(victim, 300)
    else:
        with victim.open("r+b") as file:
            file.truncate(victim.stat().st_size // 2 if damage == "its end" else 0)
    for _ in range(2):
        report = filled.pack()
        assert len(report.failed) == 1
        assert report.failed[0][1] == SPOOL_ROTTEN
        assert spooled(filled) == [victim]
    assert len(rows(filled)) == 6
    assert any("instance" in problem for problem in filled.verify(deep=True).problems)
    victim.unlink()
    packed = [row for _, row in rows(filled) if not row.spooled]
    assert len(packed) == 5


def test_a_spooled_file_that_is_lost_is_reported_and_the_rest_is_packed(filled: Archive) -> None:
    spooled(filled)[0].unlink()
    report = filled.pack()
    assert (report.instances, len(report.failed)) == (5, 1)
    assert "missing" in report.failed[0][1]
    assert len(filled.verify().problems) == 1
    # The source brings it back.
    filled.import_paths([filled.paths.root.parent / "in"])
    good, failed = readable(filled)
    assert (good, failed) == (digests(SERIES), 1)


class _FailsAtPut(FaultyTier):
    """Fails at a put, after a number of sound ones."""

    sound_puts = 0
    problem: TierError

    def put(self, *arguments: Any) -> None:
        self.sound_puts -= 1
        if self.sound_puts < 0:
            self.faults = [self.problem]
        super().put(*arguments)


@pytest.mark.parametrize("late", [False, True], ids=["before it is stored", "after it is stored"])
@pytest.mark.parametrize(
    "problem", [TierError("local", "x", "broken"), TierFull("local", "x", "full")], ids=str
)
@pytest.mark.parametrize("sound_calls", range(2))
def test_a_tier_that_fails_leaves_the_spool_and_the_next_run_succeeds(
    filled: Archive, problem: TierError, late: bool, sound_calls: int
) -> None:
    tier = _FailsAtPut(filled.tier, late=late)
    tier.sound_puts, tier.problem = sound_calls, problem
    before, waiting = tree(filled), spooled(filled)
    with pytest.raises(type(problem)):
        pack_on(filled, tier)
    assert (tree(filled), spooled(filled)) == (before, waiting)
    assert contents(filled) == digests(SERIES)
    assert list(filled.paths.staging.iterdir()) == []
    report = filled.pack()
    assert (report.instances, report.failed) == (6, [])
    assert contents(filled) == digests(SERIES)
    assert filled.verify(deep=True).notes == []
    assert filled.catalog.intents() == []


@pytest.mark.parametrize("step", ["add_intent", "commit_part", "remove_intent"])
def test_a_catalog_that_fails_leaves_the_spool_and_the_next_run_succeeds(
    filled: Archive, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise CatalogFull("full")

    waiting = spooled(filled)
    with monkeypatch.context() as patched:
        patched.setattr(CatalogWriter, step, fail)
        with pytest.raises(CatalogFull):
            filled.pack()
    assert spooled(filled) == waiting
    assert contents(filled) == digests(SERIES)
    filled.pack()
    assert spooled(filled) == []
    report = filled.verify(deep=True)
    assert (report.problems, report.notes) == ([], [])


def test_raw_bytes_that_a_dead_packer_left_behind_are_released_by_the_next(
    filled: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Spool, "release", lambda *_: None)
        filled.pack()
    assert len(spooled(filled)) == 6
    assert filled.pack().instances == 0
    assert spooled(filled) == []
    assert contents(filled) == digests(SERIES)


def test_late_slices_make_a_second_part(archive: Archive, tmp_path: Path) -> None:
    for turn, files in enumerate((SERIES[:4], SERIES[4:])):
        archive.import_paths([write_sources(tmp_path / f"in{turn}", files)])
        archive.pack()
    (series,) = {row.id.series for _, row in rows(archive)}
    assert [part.part for part in archive.catalog.parts(series)] == [0, 1]
    assert contents(archive) == digests(SERIES)


def test_two_packers_at_once_pack_everything_once(filled: Archive) -> None:
    reports: list[int] = []
    with Archive.open(filled.paths.root) as other:
        threads = [
            threading.Thread(target=lambda a=a: reports.append(a.pack().instances)) for a in (filled, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(reports) == [0, 6]
    assert contents(filled) == digests(SERIES)
    assert filled.verify(deep=True).notes == []


def test_batches_of_every_size_give_the_same_bytes(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*SERIES, *samples.ct_series(3, 16, 16, 1), samples.structured_report(), samples.enhanced_mr()]
    archive.import_paths([write_sources(tmp_path / "in", files)])
    monkeypatch.setattr(plan, "BATCH_INSTANCES", 4)
    report = archive.pack()
    assert (report.instances, report.failed) == (len(files), [])
    assert contents(archive) == digests(files)
    assert len(objects(archive, "header")) == 3


def test_what_waits_is_listed_as_its_turn_comes_not_all_at_once(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.import_paths([write_sources(tmp_path / "in", [*SERIES, *samples.ct_series(3, 16, 16, 1)])])
    monkeypatch.setattr(plan, "BATCH_INSTANCES", 1)
    left: dict[int, int] = {}
    spooled_of = archive.catalog.spooled_of

    def noted(catalog: Catalog, series: int) -> list[SpooledRecord]:
        left[series] = catalog.counts().spool_instances
        return spooled_of(series)

    monkeypatch.setattr(Catalog, "spooled_of", noted)
    assert archive.pack().instances == 9
    # The first series is packed but for what is under way, and its last instance waits for what follows it.
    first, second = left.values()
    assert first == 9
    assert 4 <= second <= 4 + AT_ONCE


def test_one_bad_series_stops_no_other(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*SERIES, *samples.ct_series(3, 16, 16, 1)]
    archive.import_paths([write_sources(tmp_path / "in", files)])
    real = choose

    def refuse(found: Any, layout: Any, *arguments: Any, **options: Any) -> Any:
        if sum(map(len, found)) == 3:
            raise CodecError("all", "refused")
        return real(found, layout, *arguments, **options)

    monkeypatch.setattr(encode, "choose", refuse)
    report = archive.pack()
    assert (report.instances, len(report.failed)) == (6, 1)
    assert len(spooled(archive)) == 3
    assert contents(archive) == digests(files)
    monkeypatch.undo()
    assert archive.pack().instances == 3
    assert contents(archive) == digests(files)
