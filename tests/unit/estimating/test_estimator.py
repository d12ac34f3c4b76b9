"""Estimates come near what packing makes, write nothing, and are bounded on any tree."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.codec.base import Profile
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.estimating import estimator, headers, measuring
from dicomfs.estimating.estimator import estimate
from dicomfs.estimating.measuring import planned_files, sampled_segments
from dicomfs.estimating.model import Estimate, FoundFile, FoundSeries, Measured, Survey
from dicomfs.estimating.survey import chosen_files, survey
from dicomfs.progress import NullProgress
from tests import format_samples, samples
from tests.archives import write_sources
from tests.codestreams import JPEG_LOSSLESS, file_of, jpeg, jpeg_lossless, smooth

NEAR = 0.05
REORDER = 128 << 20


def estimated(*sources: Path, seconds: float = 600.0, most_files: int = 20_000) -> Estimate:
    stop = threading.Event()
    return estimate(
        sources, Profile.FAST, REORDER, NullProgress(), stop, seconds=seconds, most_files=most_files
    )


def packed(folder: Path, *sources: Path) -> int:
    with Archive.create(folder) as archive:
        archive.import_paths(sources)
        assert not archive.pack("fast").failed
        stored = archive.status()["stored_bytes"]
        assert isinstance(stored, int)
        return stored


def cine(frames: int, *, fragments: bool = True) -> bytes:
    """A colour cine in JPEG baseline."""
    images = [smooth(96, 96, channels=3, bits=8, seed=seed) for seed in range(frames)]
    return file_of([jpeg(image) for image in images], images[0], samples.JPEG_BASELINE, frames=frames)


SERIES: Mapping[str, list[bytes]] = {
    "ct": samples.ct_series(20, 128, 128, 3),
    "enhanced": [samples.enhanced_mr(40, 64, 64)],
    "lossless": [
        file_of([jpeg_lossless(smooth(96, 96, seed=n))], smooth(96, 96), JPEG_LOSSLESS, number=n, bits=12)
        for n in range(1, 13)
    ],
    "cine": [cine(60)],
    "reports": [samples.structured_report(f"P{n}^Sample", n, f"Finding {n}.") for n in range(40)],
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_expected_to_take_what_it_takes(name: str, tmp_path: Path) -> None:
    source = write_sources(tmp_path / "in", SERIES[name])
    found, stored = estimated(source), packed(tmp_path / "archive", source)
    assert found.raw_bytes == sum(map(len, SERIES[name]))
    assert abs(found.stored_bytes - stored) <= NEAR * stored + 64
    assert found.seconds > 0


def test_a_sample_of_a_long_series_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = samples.ct_series(300, 64, 64, 5)
    source = write_sources(tmp_path / "in", files)
    stored = packed(tmp_path / "archive", source)
    monkeypatch.setattr(measuring, "PLANNED_BYTES", sum(map(len, files)) // 3)
    monkeypatch.setattr(headers, "HEADER_ROWS", 60)
    monkeypatch.setattr(
        measuring, "planned_files", lambda found: planned_files(found, sum(map(len, files)) // 3)
    )
    found = estimated(source)
    assert sum(group.sampled_bytes for group in found.groups) < found.raw_bytes / 2
    assert abs(found.stored_bytes - stored) < NEAR * stored


def test_modalities_and_transfer_syntaxes_are_told_apart(tmp_path: Path) -> None:
    for name, files in SERIES.items():
        write_sources(tmp_path / "in" / name, files)
    found = estimated(tmp_path / "in")
    assert {(group.modality, group.syntax) for group in found.groups} == {
        ("CT", samples.EXPLICIT),
        ("CT", JPEG_LOSSLESS),
        ("CT", samples.JPEG_BASELINE),
        ("MR", samples.EXPLICIT),
        ("SR", samples.EXPLICIT),
    }
    stored = packed(tmp_path / "archive", tmp_path / "in")
    assert abs(found.stored_bytes - stored) < NEAR * stored


def test_what_is_there_twice_counts_once(tmp_path: Path) -> None:
    first = write_sources(tmp_path / "a", samples.ct_series(12, 128, 128, 3))
    again = write_sources(tmp_path / "b", samples.ct_series(12, 128, 128, 3))
    other = samples.ct_series(12, 128, 128, 3, patient="Other^Patient", series="renamed")
    renamed = write_sources(tmp_path / "c", other)
    alone, found = estimated(first), estimated(first, again, renamed)
    assert found.survey.repeated_files == 12
    assert sum(group.pixel_bytes for group in found.groups) < 1.05 * alone.groups[0].pixel_bytes
    stored = packed(tmp_path / "archive", first, again, renamed)
    assert abs(found.stored_bytes - stored) < NEAR * stored


def test_no_time_is_enough_for_one_series_of_every_kind(tmp_path: Path) -> None:
    for number in range(6):
        write_sources(tmp_path / "in" / str(number), samples.ct_series(3, 64, 64, number, series=number))
    write_sources(tmp_path / "in" / "sr", SERIES["reports"][:1])
    found = estimated(tmp_path / "in", seconds=0)
    assert {group.modality: group.sampled_series for group in found.groups} == {"CT": 1, "SR": 1}
    assert {group.modality: group.series for group in found.groups} == {"CT": 6, "SR": 1}
    whole = estimated(tmp_path / "in")
    assert abs(found.stored_bytes - whole.stored_bytes) < 0.1 * whole.stored_bytes


def test_the_range_holds_the_truth_and_is_narrow_where_every_series_was_measured(tmp_path: Path) -> None:
    for number in range(8):
        side = 48 + 12 * number
        files = samples.ct_series(3, side, side, number, series=number)
        write_sources(tmp_path / "in" / str(number), files)
    stored = packed(tmp_path / "archive", tmp_path / "in")
    one, every = estimated(tmp_path / "in", seconds=0), estimated(tmp_path / "in")
    widths = []
    for found in (one, every):
        low, high = found.range_bytes
        assert low <= stored + 64
        assert high >= stored - 64
        widths.append((high - low) / found.stored_bytes)
    assert widths[0] > 0.1
    assert widths[1] < 0.05


def test_other_work_on_the_machine_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        files = samples.ct_series(3, 32, 32, number, series=number)
        write_sources(tmp_path / "in" / str(number), files)
    hours = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(hours))
    found = estimated(tmp_path / "in")
    assert [group.sampled_series for group in found.groups] == [4]


def test_headers_and_pixels_are_scaled_up_apart() -> None:
    def series(size: int, pixels: int, count: int) -> FoundSeries:
        described = attributes(scan(samples.ct_series(1)[0]))
        file = FoundFile(Path("x"), size // count, 0, "1.2", 1, pixels // count)
        return FoundSeries(described, samples.EXPLICIT, [file] * count)

    pixels, header_heavy = series(100_000, 90_000, 10), series(900_000, 30_000, 10)
    part, rows = format_samples.series_part(1, 3, 500)
    group = estimator._Group("CT", samples.EXPLICIT, [pixels, header_heavy])
    group.add(pixels, Measured(30_000.0, 0.0, part, rows, 0.0, 1.0, 1))
    found = group.finish(1.0)
    assert found.pixel_bytes == 40_000
    assert found.header_bytes > 0
    assert found.raw_bytes == 1_000_000


def test_of_too_many_files_some_folders_stand_for_all(tmp_path: Path) -> None:
    for number in range(8):
        write_sources(tmp_path / "in" / str(number), samples.ct_series(4, 64, 64, number, series=number))
    found, whole = estimated(tmp_path / "in", most_files=16), estimated(tmp_path / "in")
    assert found.survey.looked_files == 16
    assert found.raw_bytes == pytest.approx(whole.raw_bytes, rel=0.01)
    assert found.stored_bytes == pytest.approx(whole.stored_bytes, rel=0.1)
    files = [(Path(f"/x/{folder}/{number}"), 1) for folder in range(9) for number in range(5)]
    assert chosen_files(files, 45) == files
    some = chosen_files(files, 12)
    assert len(some) == 12
    assert len({path.parent for path, _ in some}) == 3
    assert chosen_files(files, 12) == some
    assert set(some) <= set(chosen_files(files, 20))
    assert len(chosen_files(files, 3)) == 3


def test_odd_files_and_files_that_are_none_are_counted(tmp_path: Path) -> None:
    write_sources(tmp_path / "in", {**samples.odd_files(), **samples.junk()})
    os.mkfifo(tmp_path / "in" / "pipe")
    found = estimated(tmp_path / "in")
    assert sum(found.survey.not_taken.values()) == len(samples.junk())
    assert [one.reason for one in found.survey.unreadable] == ["is no regular file"]
    assert sum(group.instances for group in found.groups) + found.survey.repeated_files == len(
        samples.odd_files()
    )


def test_stopping_answers_with_what_there_is(tmp_path: Path) -> None:
    source = write_sources(tmp_path / "in", SERIES["ct"])
    stop = threading.Event()
    stop.set()
    found = estimate([source], Profile.FAST, REORDER, NullProgress(), stop)
    assert found.stopped
    assert found.stored_bytes == 0


def test_a_file_that_vanishes_is_told_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = write_sources(tmp_path / "in" / "gone", SERIES["ct"])
    write_sources(tmp_path / "in" / "sr", SERIES["reports"][:2])

    def losing(*arguments: Any) -> Survey:
        found = survey(*arguments)
        (gone / "0003").unlink()
        return found

    monkeypatch.setattr(estimator, "survey", losing)
    found = estimated(tmp_path / "in")
    [lost] = found.survey.unreadable
    assert lost.path.endswith("gone/0003")
    assert {group.modality: group.sampled_series for group in found.groups} == {"CT": 0, "SR": 2}


def test_nothing_is_written(tmp_path: Path) -> None:
    source = write_sources(tmp_path / "in", SERIES["ct"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    estimated(source)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_command_needs_no_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DICOMFS_ARCHIVE", raising=False)
    source = write_sources(tmp_path / "in", SERIES["ct"])
    assert main(["estimate", "--json", str(source)]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    [group] = document["groups"]
    assert (group["modality"], group["instances"], group["transfer_syntax"]) == ("CT", 20, samples.EXPLICIT)
    assert 0 < document["stored_bytes"] < document["raw_bytes"]
    assert main(["estimate", str(source)]) == ExitCode.DONE
    told = capsys.readouterr()
    assert "would take about" in told.out
    assert "Sample" not in told.out + told.err
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    assert main(["estimate", str(source)]) == ExitCode.PART_FAILED


def found_files(count: int, size: int) -> list[FoundFile]:
    return [FoundFile(Path(f"{n}"), size, 0, f"1.{n}", n) for n in range(count)]


def test_runs_of_neighbours_are_planned_of_a_long_series() -> None:
    assert planned_files(found_files(10, 100), 1000) == found_files(10, 100)
    some = planned_files(found_files(1000, 100), 30_000)
    assert len(some) == 300
    assert sum(b.number - a.number > 1 for a, b in itertools.pairwise(some)) == 2  # type: ignore[operator]


def test_whole_segments_are_sampled() -> None:
    assert sampled_segments(40, 16) == [range(16), range(16, 32), range(32, 40)]
    some = sampled_segments(400, 16)
    assert len(some) == 7
    assert all(len(run) == 16 and run.start % 16 == 0 for run in some)
    assert np.mean([run.start for run in some]) == pytest.approx(200, abs=16)
