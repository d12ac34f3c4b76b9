"""Moving packs to another profile: the same bytes under the same names, whoever reads meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.codec import segment, trial
from dicomfs.codec.base import CodecId, Settings
from dicomfs.codec.candidates import Candidate
from dicomfs.codec.segment import encode_band
from dicomfs.errors import ObjectNotFound, TierFull
from dicomfs.model import PackKind
from dicomfs.packing import repack
from dicomfs.packing.commit import MOVED
from dicomfs.packing.repack import Outcome
from dicomfs.packs import PackSource
from dicomfs.recovery import recover
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import (
    contents,
    digests,
    let_everything_gain,
    numbers,
    objects,
    overwrite,
    read_whole,
    rows,
    tree,
    write_sources,
)
from tests.independent_reader import TierReader

FIRST, SECOND = samples.ct_series(6, 24, 24), samples.ct_series(5, 24, 24, 1, patient="Second^Patient")
FILES = [*FIRST, *SECOND, samples.enhanced_mr(6, 24, 24), samples.structured_report()]


@pytest.fixture(autouse=True)
def always_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    let_everything_gain(monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        created.import_paths([write_sources(tmp_path / "in", FILES)])
        created.pack("fast")
        yield created


def pixel_packs(archive: Archive) -> set[str]:
    return {path.name for kind in ("pixel", "burned") for path in objects(archive, kind)}


def profiles(archive: Archive) -> set[str]:
    return {record.profile for record in archive.catalog.objects() if record.key.startswith("pixel/")}


def test_moving_changes_nothing_that_is_seen_and_leaves_nothing_behind(archive: Archive) -> None:
    before, named, packs = tree(archive), numbers(archive), pixel_packs(archive)
    headers = {path.name: path.read_bytes() for path in objects(archive, "header")}
    outcomes: list[Outcome] = []
    report = archive.repack("dense", tell=outcomes.append)
    assert (report.moved, report.kept, report.failed, report.stopped) == (3, 0, [], False)
    assert [outcome.moved for outcome in outcomes] == [True] * 3
    assert {outcome.profile for outcome in outcomes} == {"fast"}
    assert sorted(number for outcome in outcomes for number in outcome.series) == sorted(
        {row.id.series for _, row in rows(archive)} - {_report_series(archive)}
    )
    assert (tree(archive), numbers(archive)) == (before, named)
    assert contents(archive) == digests(FILES)
    assert len(pixel_packs(archive)) == 3
    assert pixel_packs(archive).isdisjoint(packs)
    assert {path.name: path.read_bytes() for path in objects(archive, "header")} == headers
    assert profiles(archive) == {"dense"}
    assert archive.status()["pixel_bytes_by_profile"] == {"dense": archive.status()["pixel_bytes"]}
    assert list(archive.paths.staging.iterdir()) == []
    assert archive.catalog.intents() == []
    verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])


def _report_series(archive: Archive) -> int:
    (number,) = {row.id.series for _, row in rows(archive) if archive.explain(row.id) == []}
    return number


def test_packs_are_moved_to_and_fro(archive: Archive) -> None:
    for profile in ("dense", "archive", "fast", "dense"):
        assert archive.repack(profile).moved == 3
        assert profiles(archive) == {profile}
        assert archive.repack(profile).moved == 0
    assert contents(archive) == digests(FILES)
    assert len(pixel_packs(archive)) == 3
    source = PackSource(archive.tier)
    for record in archive.catalog.objects():
        if record.key.startswith("pixel/"):
            assert len(source.object(record.key).packing.stands_for) == 4


def test_a_pack_that_gains_nothing_stays_and_is_not_looked_at_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = pixel_packs(archive)
    monkeypatch.setattr(repack, "LEAST_GAIN", 0.9)
    monkeypatch.setattr(repack, "_LEAST_HALVINGS", 50)
    outcomes: list[Outcome] = []
    for profile in ("dense", "archive"):
        report = archive.repack(profile, tell=outcomes.append)
        assert (report.moved, report.kept) == (0, 3)
    assert all("gains" in outcome.reason and not outcome.moved for outcome in outcomes)
    assert all(outcome.before == outcome.after for outcome in outcomes)
    assert pixel_packs(archive) == packs
    assert archive.repack("archive", tell=outcomes.append).kept == 0
    assert archive.repack("fast").kept == 0
    assert len(outcomes) == 6


def test_only_what_was_chosen_is_moved(archive: Archive) -> None:
    (number,) = {row.id.series for place, row in rows(archive) if "Second" in place[0]}
    outcomes: list[Outcome] = []
    assert archive.repack("dense", {number}, tell=outcomes.append).moved == 1
    assert [outcome.series for outcome in outcomes] == [(number,)]
    assert profiles(archive) == {"fast", "dense"}
    assert contents(archive) == digests(FILES)


def test_readers_go_on_while_their_pack_is_moved(archive: Archive) -> None:
    instances = [row.id for _, row in rows(archive)]
    with Archive.open(archive.paths.root) as mounted:
        readers = [opened.reconstructor.open(one) for opened in (archive, mounted) for one in instances]
        started = [reader.read(0, reader.size // 2) for reader in readers]
        for profile in ("dense", "fast"):
            assert archive.repack(profile).moved == 3
        whole = [
            begun + reader.read(len(begun), reader.size)
            for begun, reader in zip(started, readers, strict=True)
        ]
        assert digests(whole) == digests(FILES)
        assert len(whole) == 2 * len(FILES)
        assert contents(mounted) == digests(FILES)
        for reader in readers:
            assert reader.read_ready(0, reader.size) in (None, reader.read(0, reader.size))
            reader.close()


def test_an_object_that_is_gone_and_was_not_moved_is_an_error(archive: Archive) -> None:
    instance = next(row.id for place, row in rows(archive) if "Second" in place[0])
    reader = archive.reconstructor.open(instance)
    for kind in ("pixel", "burned"):
        shutil.rmtree(archive.paths.local_tier / kind, ignore_errors=True)
    with pytest.raises(ObjectNotFound):
        reader.read(0, reader.size)
    assert reader.read_ready(0, reader.size) is None


def test_a_pack_that_does_not_come_back_stays(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = pixel_packs(archive)
    real = encode_band

    def lie(part: Any, *arguments: Any) -> bytes:
        raw = part.copy()
        raw[len(raw) // 2, 7] ^= 1
        return real(raw, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(segment, "encode_band", lie)
        report = archive.repack("dense")
    assert (report.moved, len(report.failed)) == (0, 3)
    assert pixel_packs(archive) == packs
    assert contents(archive) == digests(FILES)
    assert archive.catalog.intents() == []
    assert list(archive.paths.staging.iterdir()) == []
    assert archive.repack("dense").moved == 3


def test_a_pack_that_cannot_be_read_stays_and_the_others_are_moved(archive: Archive) -> None:
    victim = objects(archive, "pixel")[0]
    data = bytearray(victim.read_bytes())
    data[100:400] = bytes(300)
    overwrite(victim, bytes(data))
    report = archive.repack("dense")
    assert (report.moved, len(report.failed)) == (2, 1)
    assert victim.name in report.failed[0][0]
    assert victim.exists()


def test_it_ends_when_asked_and_goes_on_when_called_again(archive: Archive) -> None:
    stop = threading.Event()
    report = archive.repack("dense", tell=lambda _: stop.set(), stop=stop)
    assert (report.moved, report.stopped) == (1, True)
    assert contents(archive) == digests(FILES)
    assert archive.repack("dense").moved == 2
    assert contents(archive) == digests(FILES)


def test_a_pack_under_way_is_dropped_when_asked_to_stop(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, packs = threading.Event(), pixel_packs(archive)
    real = encode_band

    def asked(*arguments: Any) -> bytes:
        stop.set()
        return real(*arguments)

    monkeypatch.setattr(segment, "encode_band", asked)
    report = archive.repack("dense", stop=stop)
    assert (report.moved, report.failed, report.stopped) == (0, [], True)
    assert pixel_packs(archive) == packs
    assert list(archive.paths.staging.iterdir()) == []


def test_a_full_disk_stops_it_and_loses_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TierFull("local", "x", "full")

    with monkeypatch.context() as patched:
        patched.setattr(FolderTier, "put", full)
        with pytest.raises(TierFull):
            archive.repack("dense")
    assert contents(archive) == digests(FILES)
    assert archive.repack("dense").moved == 3
    assert archive.pack().failed == []
    verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])


def test_what_a_dead_run_left_is_deleted_by_the_next(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = pixel_packs(archive)
    with monkeypatch.context() as patched:
        patched.setattr("dicomfs.repacker.end_intents", lambda *_: None)
        archive.repack("dense")
    assert packs < pixel_packs(archive)
    assert {intent.owner for intent in archive.catalog.intents()} == {MOVED}
    assert archive.repack("dense").moved == 0
    assert pixel_packs(archive).isdisjoint(packs)
    assert archive.catalog.intents() == []
    assert contents(archive) == digests(FILES)


@pytest.mark.parametrize("left", ["only the new", "both", "both, twice moved"])
def test_recover_reads_the_new_packs(archive: Archive, tmp_path: Path, left: str) -> None:
    before, named = tree(archive), numbers(archive)
    old = {path: path.read_bytes() for path in objects(archive, "pixel")}
    archive.repack("archive" if "twice" in left else "dense")
    if "twice" in left:
        old |= {path: path.read_bytes() for path in objects(archive, "pixel")}
        archive.repack("dense")
    moved = {path.name for path in objects(archive, "pixel")}
    if "both" in left:
        for path, data in old.items():
            path.write_bytes(data)
    archive.close()
    report = recover(archive.paths.root, archive.paths.local_tier.as_uri())
    assert report.problems == []
    with Archive.open(archive.paths.root) as recovered:
        assert (tree(recovered), numbers(recovered)) == (before, named)
        assert contents(recovered) == digests(FILES)
        recovered.pack()
        assert {path.name for path in objects(recovered, "pixel")} == moved
        assert contents(recovered) == digests(FILES)
        verified = recovered.verify(deep=True)
        assert (verified.problems, verified.notes) == ([], [])
        assert recovered.repack("dense").moved == 0


def test_recover_finds_a_stand_in_whose_index_is_lost(archive: Archive) -> None:
    archive.repack("dense")
    victim = max(objects(archive, "pixel"), key=lambda path: path.stat().st_size)
    overwrite(victim, victim.read_bytes()[:-80])
    archive.close()
    recover(archive.paths.root, archive.paths.local_tier.as_uri())
    with Archive.open(archive.paths.root) as recovered:
        stood_for = [key for key in _needed(recovered) if recovered.catalog.placed(key).endswith(victim.name)]
        assert len(stood_for) == 1


def _needed(archive: Archive) -> set[Any]:
    catalog = archive.catalog
    headers = [record.key for record in catalog.objects() if record.key.startswith(PackKind.HEADER.prefix)]
    return {key for header in headers for key in catalog.references(header)}


def test_a_pack_under_the_name_of_a_stand_in_is_refused(archive: Archive) -> None:
    archive.repack("dense")
    one, other, *_ = objects(archive, "pixel")
    data = one.read_bytes()
    overwrite(one, other.read_bytes())
    overwrite(other, data)
    with Archive.open(archive.paths.root) as opened:
        problems = [problem for problem in opened.verify().problems if "instance" in problem]
    assert problems
    assert all("is not the pack that the instance table refers to" in problem for problem in problems)


def test_an_archive_of_all_profiles_reads_well(archive: Archive, tmp_path: Path) -> None:
    more = samples.ct_series(4, 24, 24, 2)
    archive.import_paths([write_sources(tmp_path / "more", more)])
    archive.pack("archive")
    (number,) = {row.id.series for place, row in rows(archive) if "Second" in place[0]}
    archive.repack("dense", {number})
    assert profiles(archive) == {"fast", "dense", "archive"}
    assert contents(archive) == digests([*FILES, *more])


def test_stat_explains_what_was_decided(archive: Archive) -> None:
    instance = next(row.id for place, row in rows(archive) if "Second" in place[0])
    for profile in ("fast", "dense"):
        archive.repack(profile)
        (stack,) = archive.explain(instance)
        assert (stack["profile"], stack["frames"], stack["bands"]) == (profile, len(SECOND), 1)
        assert stack["order"] in ("as named", "along the slices")
        assert stack["raw_bytes"] == len(SECOND) * 24 * 24 * 2
        candidates = stack["candidates"]
        assert isinstance(candidates, list)
        assert {"raw", "jpegls"} <= {one["codec"] for one in candidates}
        assert stack["reason"]
        pack = archive.tier.stat(archive.catalog.placed(stack["object"])).size  # type: ignore[arg-type]
        assert 0 < stack["stored_bytes"] < pack  # type: ignore[operator]


def test_a_reader_written_from_the_text_finds_stand_ins(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still(*_: object, **__: object) -> tuple[Candidate, ...]:
        return tuple(Candidate(codec, Settings()) for codec in (CodecId.RAW, CodecId.JPEGXL))

    monkeypatch.setattr(trial, "candidates", still)
    assert archive.repack("dense").moved == 3
    assert archive.repack("archive").moved == 3
    reader = TierReader(archive.paths.local_tier)
    assert digests(reader.read(instance) for instance in reader.instances) == digests(FILES)
    assert read_whole(archive, rows(archive)[0][1].id)


def test_a_pack_that_was_moved_is_not_made_again_by_the_same_frames(archive: Archive, tmp_path: Path) -> None:
    everything = list(FILES)
    for turn, profile in enumerate(("dense", "archive", "fast")):
        copies = samples.ct_series(6, 24, 24, patient=f"Copy^{profile}")
        archive.import_paths([write_sources(tmp_path / f"copies {turn}", copies)])
        assert archive.pack("fast").failed == []
        everything += copies
        assert archive.repack(profile).failed == []
        assert contents(archive) == digests(everything)
        assert len(pixel_packs(archive)) == 3
    assert profiles(archive) == {"fast"}
    _require_sound_and_recoverable(archive, everything)


def test_what_refers_to_frames_of_a_moved_pack_goes_on_doing_so(archive: Archive, tmp_path: Path) -> None:
    """Frames that are stored once are referred to by the name that their pack had first."""
    everything = list(FILES)
    shown = samples.ct_series(6, 64, 64, 7)
    for turn, profile in enumerate(("dense", "archive", "fast", "dense")):
        # Some of the slices, so that their own pack would be another one.
        others = samples.ct_series(6, 64, 64, 7, patient=f"Copy^{profile}")[turn:] if turn else shown
        archive.import_paths([write_sources(tmp_path / f"copies {turn}", others)])
        assert archive.pack("fast").failed == []
        everything += others
        assert len(pixel_packs(archive)) == 4
        assert archive.repack(profile).failed == []
        assert contents(archive) == digests(everything)
    referred = [len(archive.catalog.referring([key])) for key in _needed(archive)]
    assert sorted(referred) == [1, 1, 1, 4], "each turn refers to the pack by the name that it had first"
    _require_sound_and_recoverable(archive, everything)


def _require_sound_and_recoverable(archive: Archive, everything: list[bytes]) -> None:
    verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])
    before, named = tree(archive), numbers(archive)
    archive.close()
    assert recover(archive.paths.root, archive.paths.local_tier.as_uri()).problems == []
    with Archive.open(archive.paths.root) as recovered:
        assert (tree(recovered), numbers(recovered)) == (before, named)
        assert contents(recovered) == digests(everything)
