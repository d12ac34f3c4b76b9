"""Texts that headers share, with all else that recovery has to tell: snapshots, twins, encryption, loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomfs import config
from dicomfs.archive import Archive
from dicomfs.index.catalog import Catalog
from dicomfs.model import ObjectKey, is_text_pack
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from tests import samples
from tests.archives import contents, digests, index_contents, readable, rows, write_sources
from tests.tiered import LABORATORY, copy_all, two_tiers

PATIENTS = ("First^Patient", "Second^Patient", "Third^Patient")
PROTOCOL = samples.protocol("scanner")
FILES = [data for name in PATIENTS for data in samples.long_headers(name, PROTOCOL)]


def made(root: Path, *, plain: bool, packing: config.Profile | None = None) -> Archive:
    """Three patients whose headers share a text, packed one after the other, and all of it on both tiers."""
    archive = two_tiers(root, plain=plain, packing=packing)
    for name in PATIENTS:
        archive.import_paths([write_sources(root / name, samples.long_headers(name, PROTOCOL))])
        assert archive.pack().failed == []
    copy_all(archive)
    return archive


def texts(archive: Archive) -> list[ObjectKey]:
    return [one.key for one in archive.catalog.objects() if is_text_pack(one.key)]


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
def test_recovery_finds_texts_with_and_without_a_snapshot(tmp_path: Path, plain: bool) -> None:
    with made(tmp_path, plain=plain, packing="dense") as archive:
        report = archive.snapshots().make(NullProgress())
        assert (report.failed, report.left_out) == ([], [])
        known = texts(archive)
        assert known
    shutil.rmtree(tmp_path / "archive")
    key = None if plain else tmp_path / "key"
    found = []
    for to, packs in (("by packs", True), ("by snapshot", False)):
        told = recover(tmp_path / to, (tmp_path / LABORATORY).as_uri(), key, from_packs=packs)
        assert (told.problems, bool(told.snapshot)) == ([], not packs)
        with Catalog.open(tmp_path / to / "index") as catalog:
            found.append(index_contents(catalog))
        with Archive.open(tmp_path / to) as again:
            assert texts(again) == known
            assert contents(again) == digests(FILES)
            assert again.verify(deep=True).problems == []
            assert again.collector().collect(now_ns=2**62).deleted == 0
    assert found[0] == found[1]


def test_a_text_that_is_lost_is_told_and_what_needs_none_is_there(tmp_path: Path) -> None:
    with made(tmp_path, plain=True) as archive:
        other = samples.ct_series(3, 48, 48, 1, patient="Other^Patient")
        archive.import_paths([write_sources(tmp_path / "other", other)])
        archive.pack()
        copy_all(archive)
        known = texts(archive)
    shutil.rmtree(tmp_path / "archive")
    for key in known:
        (tmp_path / LABORATORY / key).rename(tmp_path / key.replace("/", "-"))
    told = recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri())
    with Archive.open(tmp_path / "again") as again:
        problems = [*told.problems, *again.verify(deep=True).problems]
        assert all(any(key in problem for problem in problems) for key in known)
        found, missing = readable(again)
        assert found == digests(other)
        assert missing == 0, "without their texts, headers tell no names: they are listed among the problems"
    for key in known:
        (tmp_path / key.replace("/", "-")).rename(tmp_path / LABORATORY / key)
    assert recover(tmp_path / "whole", (tmp_path / LABORATORY).as_uri()).problems == []
    with Archive.open(tmp_path / "whole") as again:
        assert contents(again) == digests([*FILES, *other])


def test_a_forgotten_patient_leaves_no_text_of_his_own_on_any_tier(tmp_path: Path) -> None:
    with made(tmp_path, plain=True) as archive:
        gone = [row.id for (folder, *_), row in rows(archive) if "Third" not in folder]
        archive.decisions().forget(gone, "asked to")
        assert archive.purger().purge().left == []
        assert contents(archive) == digests(samples.long_headers(PATIENTS[2], PROTOCOL))
        report = archive.verify(deep=True)
        assert (report.problems, report.notes) == ([], [])
        last = [row.id for _, row in rows(archive)]
        archive.decisions().forget(last, "asked to")
        assert archive.purger().purge().left == []
        for name in archive.tiers.names:
            assert [
                key for kind in ("text", "header", "pixel") for key, _ in archive.tiers[name].list(kind)
            ] == []
