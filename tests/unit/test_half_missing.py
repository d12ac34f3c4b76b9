"""A tier with half of its objects missing: what can be had is had, exactly; the rest is listed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError
from dicomfs.lifecycle import State
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.residency import UNREACHABLE
from dicomfs.scrubbing import Budget
from tests import samples
from tests.archives import digests, read_whole, rows, write_sources
from tests.tiered import LABORATORY, copied, copy_all, two_tiers

SERIES = [samples.ct_series(2, 24, 24, number, patient=f"Patient^{number}") for number in range(6)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six series, each packed by itself and copied to the laboratory; the archive's own folder is lost."""
    top = tmp_path_factory.mktemp("half")
    with two_tiers(top) as archive:
        for number, files in enumerate(SERIES):
            archive.import_paths([write_sources(top / f"in{number}", files)])
            archive.pack()
        copy_all(archive)
    shutil.rmtree(top / "archive")
    return top


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("kinds", [("pixel",), ("header",), ("journal",), ("pixel", "header", "journal")])
def test_what_can_be_had_is_had_and_the_rest_is_listed(
    whole: Path, tmp_path: Path, kinds: tuple[str, ...], odd: int
) -> None:
    shutil.copytree(whole / LABORATORY, tmp_path / LABORATORY)
    lost = []
    for kind in kinds:
        found = sorted(path for path in (tmp_path / LABORATORY / kind).rglob("*") if path.is_file())
        for path in found[odd::2]:
            lost.append(str(path.relative_to(tmp_path / LABORATORY)))
            path.unlink()
    report = recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri())
    with Archive.open(tmp_path / "again") as again:
        expected = digests([data for files in SERIES for data in files])
        good, bad = set(), 0
        for _, row in rows(again):
            try:
                good |= digests([read_whole(again, row.id)])
            except DicomfsError:
                bad += 1
        assert good <= expected
        if "pixel" not in kinds and "header" not in kinds:
            assert good == expected
        headers = sum(key.startswith("header/") for key in lost)
        assert len({row.id.series for _, row in rows(again)}) == len(SERIES) - headers
        if kinds in (("pixel",), ("header",)):
            assert len(good) == len(expected) - 2 * len(lost)
        assert bad == len(expected) - len(good) - 2 * headers
        told = " ".join([*report.problems, *report.notes])
        # A pack is named by who needs it; who names a header pack is the journal, by its series.
        needed = {key for record in again.catalog.objects() for key in again.catalog.references(record.key)}
        assert all(key in told for key in lost if key.startswith("pixel/") and key in needed)
        assert (
            not headers or "journal" in kinds or sum("names it" in note for note in report.notes) == headers
        )
        if "journal" in kinds:
            assert "journal/" in told
        # Nothing is thrown away as long as something may come back.
        assert again.collector().collect().condemned == 0


def test_what_comes_back_later_is_recovered_then(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / LABORATORY, tmp_path / LABORATORY)
    lost = sorted((tmp_path / LABORATORY / "pixel").glob("*/*"))[0]
    kept = lost.read_bytes()
    lost.unlink()
    url = (tmp_path / LABORATORY).as_uri()
    assert len(recover(tmp_path / "again", url).problems) == 1
    lost.write_bytes(kept)
    assert recover(tmp_path / "again", url).problems == []
    with Archive.open(tmp_path / "again") as again:
        assert again.verify(deep=True).problems == []


@pytest.mark.parametrize("kind", ["pixel", "opaque"])
def test_what_is_lost_is_told_by_what_moves_and_explains_and_the_rest_is_moved(
    tmp_path: Path, kind: str
) -> None:
    copied(tmp_path).close()
    lost = next(path for path in sorted((tmp_path / LABORATORY / kind).rglob("*")) if path.is_file())
    key = str(lost.relative_to(tmp_path / LABORATORY))
    lost.unlink()
    recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri())
    with Archive.open(tmp_path / "again") as again:
        again.claim(LABORATORY)
        tiering = again.tiering()
        meant = tiering.objects(again.catalog.all_series())
        warmed = tiering.warm(meant, NullProgress())
        assert [found for found, _ in warmed.failed] == [key]
        assert all("local" in record.tiers for record in again.catalog.objects())
        assert again.scrubber().scrub(Budget(), NullProgress(), objects=meant).damaged == [
            ("any", key, "no tier is known to have it")
        ]
        facts, verdicts = again.lifecycle.verdicts([record.key for record in meant])[0]
        assert (facts.key, [one.state for one in verdicts]) == (key, [State.HELD, State.HELD])
        bad = {row.id for _, row in rows(again) if key in again.residency.objects(row.id)}
        residencies = {row.id: again.residency.of(row.id)["residency"] for _, row in rows(again)}
        assert bad
        assert {one for one, state in residencies.items() if state == UNREACHABLE} == bad
