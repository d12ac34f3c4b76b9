"""Packs that tiers hold in a profile of their own: the same bytes from each, and each counts as a copy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.copies import LastCopy
from dicomfs.errors import MismatchError, TierFull
from dicomfs.lifecycle import Move, State
from dicomfs.packing import repack, seal, together
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.scrubbing import Budget
from tests import samples
from tests.archives import contents, digests, flip, numbers, objects, rows, tree, write_sources
from tests.cold_tier import freeze
from tests.independent_reader import TierReader
from tests.tiered import EXTERNAL, FILES, LABORATORY, copy_all, evict_all, packed, three_tiers, write_settings
from tests.twins import DENSE, far, pixels, profiles, reopened, require_sound

# making twins


def test_what_goes_to_a_dense_tier_is_dense_there_and_stays_fast_at_home(both: Archive) -> None:
    assert profiles(both) == {"local": {"fast"}, EXTERNAL: {"dense"}}
    require_sound(both)
    assert copy_all(both, EXTERNAL).objects == 0
    evict_all(both)
    assert profiles(both) == {EXTERNAL: {"dense"}}
    require_sound(both)
    reader = TierReader(both.paths.root.parent / EXTERNAL)
    of_frames = next(one for one in reader.instances if one.size == len(FILES[-1]))
    assert digests([reader.read(of_frames)]) <= digests(FILES)


def test_three_profiles_on_three_tiers_give_the_same_bytes(tmp_path: Path) -> None:
    tiers = {LABORATORY: "packing = 'dense'\n", EXTERNAL: "packing = 'archive'\n"}
    with three_tiers(tmp_path, tiers=tiers) as archive:
        shown, named = tree(archive), numbers(archive)
        for tier in (LABORATORY, EXTERNAL):
            copy_all(archive, tier)
        assert profiles(archive) == {"local": {"fast"}, LABORATORY: {"dense"}, EXTERNAL: {"archive"}}
        for tier in ("local", LABORATORY):
            evict_all(archive, tier)
            with Archive.open(archive.paths.root) as again:
                require_sound(again)
                assert (tree(again), numbers(again)) == (shown, named)


def test_an_encrypted_tier_holds_packs_in_its_profile(tmp_path: Path) -> None:
    packed(tmp_path, plain=False).close()
    settings = tmp_path / "archive" / "dicomfs.toml"
    section = f"[tiers.{LABORATORY}]\n"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace(section, section + "packing = 'dense'\n"), encoding="utf-8")
    with Archive.open(tmp_path / "archive") as archive:
        copy_all(archive)
        assert profiles(archive) == {"local": {"fast"}, LABORATORY: {"dense"}}
        evict_all(archive)
        require_sound(archive)
    assert recover(tmp_path / "archive", (tmp_path / LABORATORY).as_uri()).problems == []
    with Archive.open(tmp_path / "archive") as archive:
        require_sound(archive)


def test_what_a_tier_holds_is_what_takes_room_there(both: Archive) -> None:
    held = list(both.catalog.held())
    on_tier = both.tiering().on(EXTERNAL, held)
    assert [both.tiers[EXTERNAL].stat(one.key).size for one in on_tier] == [one.size for one in on_tier]
    assert len(on_tier) == len(held)
    assert [one.size for one in on_tier] != [one.size for one in held]


def test_what_gains_nothing_is_copied_as_it_is_and_not_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "LEAST_GAIN", 0.9)
    copy_all(archive, EXTERNAL)
    assert profiles(archive) == {"local": {"fast"}, EXTERNAL: {"fast"}}
    evict_all(archive, EXTERNAL)

    def tried(*_: object) -> None:
        pytest.fail("tried again")

    monkeypatch.setattr(repack.PackMove, "make", tried)
    copy_all(archive, EXTERNAL)
    require_sound(archive)


def _differs(*_: object) -> None:
    raise MismatchError("instance 1/0 from the new pack")


def _full(*_: object) -> None:
    raise TierFull("staging", "1.part", "cannot be written: No space left on device")


@pytest.mark.parametrize(
    "owner, name, fault",
    [(repack, "compare", _differs), (seal.Staging, "write_pack", _full)],
    ids=["differs", "no room"],
)
def test_what_cannot_be_coded_anew_is_copied_as_it_is(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Callable[..., None]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    copy_all(archive, EXTERNAL)
    assert profiles(archive) == {"local": {"fast"}, EXTERNAL: {"fast"}}
    require_sound(archive)


def test_who_stops_leaves_nothing_half_done(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, tiering = threading.Event(), archive.tiering()
    original = repack.PackMove.make

    def stopping(self: repack.PackMove, staging: seal.Staging) -> object:
        stop.set()
        return original(self, staging)

    monkeypatch.setattr(repack.PackMove, "make", stopping)
    report = tiering.copy(EXTERNAL, tiering.objects(), NullProgress(), stop)
    assert report.stopped
    assert report.failed == []
    assert far(archive) == []
    require_sound(archive)


def test_while_the_tier_of_the_wanted_profile_is_down_another_twin_is_copied(tmp_path: Path) -> None:
    tiers = {LABORATORY: "packing = 'dense'\nretry_seconds = 0\n", EXTERNAL: "packing = 'dense'\n"}
    with three_tiers(tmp_path, tiers=tiers) as archive:
        copy_all(archive)
        (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
        copy_all(archive, EXTERNAL)
        (tmp_path / "unmounted").rename(tmp_path / LABORATORY)
        assert profiles(archive) == {"local": {"fast"}, LABORATORY: {"dense"}, EXTERNAL: {"dense"}}
        require_sound(archive)


# what is brought back


def test_what_is_warmed_comes_back_as_it_is_or_as_the_local_tier_wants_it(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers=DENSE) as archive:
        copy_all(archive, EXTERNAL)
        evict_all(archive)
        tiering = archive.tiering()
        assert tiering.warm(tiering.objects(), NullProgress()).failed == []
        assert profiles(archive) == {"local": {"dense"}, EXTERNAL: {"dense"}}
        require_sound(archive)
        evict_all(archive)
    write_settings(tmp_path, tiers=DENSE | {"local": "packing = 'fast'\n"})
    with Archive.open(tmp_path / "archive") as archive:
        tiering = archive.tiering()
        assert tiering.warm(tiering.objects(), NullProgress()).failed == []
        assert profiles(archive) == {"local": {"fast"}, EXTERNAL: {"dense"}}
        require_sound(archive)
        assert tiering.copy(EXTERNAL, tiering.objects(), NullProgress()).objects == 0
        evict_all(archive, EXTERNAL)
        require_sound(archive)


def test_what_is_read_from_afar_is_promoted_as_it_is(both: Archive) -> None:
    evict_all(both)
    settings = both.paths.settings
    settings.write_text(settings.read_text() + "\n[archive]\nminimum_free_bytes = 0\n")
    with reopened(both) as archive:
        archive.promote_what_is_read()
        assert contents(archive) == digests(FILES)
        archive._nearest._pool and archive._nearest._pool.shutdown(wait=True)  # type: ignore[func-returns-value]
        assert profiles(archive) == {"local": {"dense"}, EXTERNAL: {"dense"}}
    with Archive.open(both.paths.root) as archive:
        require_sound(archive)


# reading


def test_a_pack_that_is_gone_or_damaged_is_read_by_its_twin_and_replaced(both: Archive) -> None:
    first, *others = objects(both, "pixel")
    first.unlink()
    for path in others:
        flip(path, path.stat().st_size // 2)
    with reopened(both) as archive:
        assert contents(archive) == digests(FILES)
        scrubbed = archive.scrubber().scrub(Budget(), NullProgress())
        assert scrubbed.damaged == []
        assert profiles(archive) == {"local": {"dense"}, EXTERNAL: {"dense"}}
        require_sound(archive)


def test_a_damaged_twin_is_replaced_by_its_pack(both: Archive) -> None:
    for path in far(both):
        flip(path, path.stat().st_size // 2)
    scrubbed = both.scrubber().scrub(Budget(), NullProgress())
    assert (len(scrubbed.healed), scrubbed.damaged) == (len(pixels(both)), [])
    require_sound(both)


def test_while_one_tier_is_down_the_other_twin_is_read(tmp_path: Path) -> None:
    tiers = {LABORATORY: "packing = 'dense'\n", EXTERNAL: "packing = 'archive'\n"}
    with three_tiers(
        tmp_path, "", {name: text + "retry_seconds = 1\n" for name, text in tiers.items()}
    ) as made:
        for tier in (LABORATORY, EXTERNAL):
            copy_all(made, tier)
        evict_all(made)
        opened = made.reconstructor.open(rows(made)[0][1].id)
        (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
        opened.read(0, opened.size)
        assert contents(made) == digests(FILES)


def test_readers_go_on_while_their_pack_leaves_and_comes_back(both: Archive) -> None:
    with Archive.open(both.paths.root) as mounted:
        readers = [mounted.reconstructor.open(row.id) for _, row in rows(mounted)]
        begun = [reader.read(0, reader.size // 2) for reader in readers]
        evict_all(both)
        whole = [one + reader.read(len(one), reader.size) for one, reader in zip(begun, readers, strict=True)]
    assert digests(whole) == digests(FILES)


def test_a_twin_that_is_not_cold_is_read_before_one_is_restored(tmp_path: Path) -> None:
    tiers = {LABORATORY: "packing = 'dense'\n", EXTERNAL: "packing = 'archive'\n"}
    with three_tiers(tmp_path, tiers=tiers) as archive:
        for tier in (LABORATORY, EXTERNAL):
            copy_all(archive, tier)
        evict_all(archive)
        for record in archive.catalog.held():
            if not record.key.startswith("pixel/"):
                archive.copies.place(record.key, "local")
        near = freeze(archive, LABORATORY)
        assert contents(archive) == digests(FILES)
        assert near.asked == []
        freeze(archive, EXTERNAL)
        tiering = archive.tiering()
        report = tiering.warm(tiering.objects(), NullProgress())
        assert (len(report.cold), report.failed) == (len(pixels(archive)), [])
        assert len(near.asked) == len(pixels(archive))
        near.thaw()
        tiering.wait_for_cold(report, NullProgress(), threading.Event(), 0.0)
        assert (report.cold, report.failed) == ([], [])
        assert profiles(archive)["local"] == {"dense"}


def test_of_a_family_the_nearest_is_moved(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers=DENSE) as archive:
        copy_all(archive, LABORATORY)
        copy_all(archive, EXTERNAL)
        evict_all(archive)
        evict_all(archive, LABORATORY)
        copy_all(archive, "local")
        copy_all(archive, LABORATORY)
        assert profiles(archive) == {name: {"dense"} for name in ("local", LABORATORY, EXTERNAL)}
        assert archive.repack("fast").moved == len(pixels(archive))
        assert profiles(archive) == {"local": {"fast"}, LABORATORY: {"fast"}, EXTERNAL: {"dense"}}
        archive.collector().collect()
        archive.collector().collect(now_ns=2**62)
        require_sound(archive)


# counting


def test_a_twin_is_a_copy_and_the_last_of_a_family_stays(tmp_path: Path) -> None:
    with three_tiers(tmp_path, "[lifecycle]\nminimum_copies = 2\n", DENSE) as archive:
        copy_all(archive, EXTERNAL)
        assert len(evict_all(archive).kept) == len(list(archive.catalog.held()))
        copy_all(archive, LABORATORY)
        assert evict_all(archive).kept == []
        assert profiles(archive) == {LABORATORY: {"fast"}, EXTERNAL: {"dense"}}
        key = pixels(archive)[0]
        assert archive.copies.evict(key, LABORATORY)
        with pytest.raises(LastCopy):
            archive.copies.evict(key, EXTERNAL)
        require_sound(archive)


def test_rules_see_a_family_as_one_and_each_tier_as_it_is(both: Archive) -> None:
    for facts, verdicts in both.lifecycle.verdicts(pixels(both)):
        assert facts.tiers.keys() == {"local", EXTERNAL}
        assert (facts.profile_on("local"), facts.profile_on(EXTERNAL)) == ("fast", "dense")
        assert facts.size_on("local") != facts.size_on(EXTERNAL)
        assert [(one.move, one.state) for one in verdicts if one.tier == EXTERNAL] == [
            (Move.EVICT, State.NEVER)
        ]
    tiers, stored = both.tiering().status(), both.status()
    assert tiers[EXTERNAL]["objects"] == tiers["local"]["objects"]
    assert tiers[EXTERNAL]["bytes"] != tiers["local"]["bytes"]
    assert set(stored["pixel_bytes_by_profile"]) == {"fast"}  # type: ignore[call-overload]


def test_rules_send_dense_and_evict_fast(tmp_path: Path) -> None:
    rule = "[[rules]]\nkinds = ['pixel']\nprofiles = ['fast']\nevict_from = 'local'\nevict_after_days = 0\n"
    tiers = {EXTERNAL: "packing = 'dense'\ncopy_after_days = 0\n"}
    with three_tiers(tmp_path, rule + "unused_days = 0\n", tiers) as archive:
        report = archive.lifecycle.apply(NullProgress())
        assert not report.failed
        assert profiles(archive) == {EXTERNAL: {"dense"}}
        require_sound(archive)
        again = archive.lifecycle.apply(NullProgress())
        assert (again.copied, again.evicted) == ({}, {})


# what else touches packs


def test_gc_keeps_twins_as_long_as_anybody_needs_their_pack(both: Archive) -> None:
    report = both.collector().collect()
    assert (report.condemned, report.deleted) == (0, 0)
    instances = [row.id for _, row in rows(both)]
    both.decisions().forget(instances, "test")
    assert list(both.catalog.objects()) == []
    assert (objects(both, "pixel"), far(both)) == ([], [])


def test_what_is_forgotten_after_its_pack_left_is_destroyed_under_its_new_name(both: Archive) -> None:
    evict_all(both)
    both.decisions().forget([row.id for _, row in rows(both)], "test")
    assert far(both) == []


def test_repack_leaves_to_a_tier_what_its_settings_want_there(both: Archive) -> None:
    copy_all(both, LABORATORY)
    kept = far(both)
    assert both.repack("archive").moved == len(pixels(both))
    assert profiles(both) == {"local": {"archive"}, LABORATORY: {"archive"}, EXTERNAL: {"dense"}}
    assert far(both) == kept
    assert copy_all(both, EXTERNAL).objects == 0
    assert both.repack("archive").moved == 0
    with reopened(both) as archive:
        archive.collector().collect()
        archive.collector().collect(now_ns=2**62)
        require_sound(archive)
        evict_all(archive)
        evict_all(archive, LABORATORY)
        require_sound(archive)


def test_repack_leaves_the_pack_itself_where_its_profile_is_wanted(tmp_path: Path) -> None:
    with three_tiers(tmp_path, tiers={EXTERNAL: "packing = 'fast'\n"}) as archive:
        copy_all(archive, EXTERNAL)
        assert archive.repack("dense").moved == len(pixels(archive))
        assert profiles(archive) == {"local": {"dense"}, EXTERNAL: {"fast"}}
        require_sound(archive)
        archive.close()
        assert recover(archive.paths.root, archive.paths.local_tier.as_uri()).problems == []
    with Archive.open(tmp_path / "archive") as archive:
        assert profiles(archive) == {"local": {"dense"}, EXTERNAL: {"fast"}}
        require_sound(archive)
        evict_all(archive)
        require_sound(archive)


def test_frames_that_come_again_are_found_in_packs_with_twins(both: Archive, tmp_path: Path) -> None:
    again = samples.ct_series(4, 48, 48, patient="Again^Patient")
    for turn, tier in enumerate(("local", EXTERNAL)):
        if turn:
            # Now the twin is what is left.
            evict_all(both)
        copies = [data.replace(b"Again^Patient", f"Again^Pat{turn:04d}".encode()) for data in again]
        packs = len(pixels(both))
        both.import_paths([write_sources(tmp_path / f"again {turn}", copies)])
        assert both.pack("fast").failed == []
        assert len(pixels(both)) == packs, tier
        copy_all(both, EXTERNAL)
        assert contents(both) >= digests(copies)
    evict_all(both)
    both.close()
    assert recover(both.paths.root, (tmp_path / EXTERNAL).as_uri()).problems == []
    with Archive.open(both.paths.root) as recovered:
        assert contents(recovered) >= digests(FILES) | digests(copies)
        assert recovered.verify(deep=True).problems == []


def test_parts_that_are_packed_together_let_their_twins_go(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = samples.ct_series(6, 48, 48, 7, patient="Late^Patient")
    for turn in (0, 1):
        archive.import_paths([write_sources(tmp_path / f"late {turn}", slices[3 * turn : 3 * turn + 3])])
        if turn:
            monkeypatch.setattr(together, "DEPOSITS", 2)
            monkeypatch.setattr(together, "CLASS_BITS", 64)
        report = archive.pack("fast")
        assert report.failed == []
        copy_all(archive, EXTERNAL)
    assert report.together == 2
    assert profiles(archive) == {"local": {"fast"}, EXTERNAL: {"dense"}}
    assert contents(archive) == digests([*FILES, *slices])
    archive.collector().collect()
    archive.collector().collect(now_ns=2**62)
    report_of_all = archive.verify(deep=True)
    assert (report_of_all.problems, report_of_all.notes) == ([], [])
    assert len(far(archive)) == len(pixels(archive)) == 3
