"""A full disk: a clear error, nothing lost, and all goes on once there is room.  Needs root, for a mount."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.errors import CatalogError, TierFull
from tests import samples
from tests.archives import contents, digests, fill, numbers, set_minimum_free, small_disk, write_sources


def noise(seed: int) -> list[bytes]:
    """Files of about 1 MiB that no codec makes smaller."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(1, 7):
        head = samples.identity(f"Noise^{seed}", number) + samples.image(512, 1024)
        pixels = samples.LITTLE.element(samples.PIXEL_DATA, "OW", rng.bytes(1 << 20))
        files.append(samples.part10(samples.write(head) + pixels))
    return files


FILES = noise(1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 24) as mounted:
        yield mounted


@pytest.fixture
def root(disk: Path) -> Path:
    Archive.create(disk / "archive").close()
    set_minimum_free(disk / "archive", 0)
    return disk / "archive"


@pytest.mark.parametrize("leave", [3 << 20, 1 << 20, 40_000, 0])
def test_a_disk_that_fills_up_during_an_import_loses_nothing(root: Path, tmp_path: Path, leave: int) -> None:
    sources = write_sources(tmp_path / "in", FILES)
    first = write_sources(tmp_path / "first", noise(2)[:1])
    with Archive.open(root) as archive:
        archive.import_paths([first])
        ballast = fill(root.parent, leave)
        taken = 0
        with contextlib.suppress(TierFull, CatalogError):
            report = archive.import_paths([sources])
            taken = report.taken
            assert taken + len(report.not_taken) == 6
            assert all("no space left" in one.reason for one in report.not_taken)
            assert len(contents(archive)) == taken + 1
    with Archive.open(root) as archive:
        assert len(contents(archive)) >= taken + 1
        before = numbers(archive)
        ballast.unlink()
        report = archive.import_paths([sources])
        assert (report.taken + report.already, report.not_taken) == (6, [])
        assert before.items() <= numbers(archive).items()
        assert contents(archive) == digests([*FILES, *noise(2)[:1]])
        assert archive.verify(deep=True).problems == []


@pytest.mark.parametrize("leave", [3 << 20, 100_000, 0])
def test_a_disk_that_fills_up_during_a_pack_loses_nothing(root: Path, tmp_path: Path, leave: int) -> None:
    sources = write_sources(tmp_path / "in", FILES)
    with Archive.open(root) as archive:
        archive.import_paths([sources])
        before = numbers(archive)
        ballast = fill(root.parent, leave)
        with pytest.raises((TierFull, CatalogError)):
            archive.pack()
        assert contents(archive) == digests(FILES)
        assert list(archive.paths.staging.iterdir()) == []
    with Archive.open(root) as archive:
        assert (contents(archive), numbers(archive)) == (digests(FILES), before)
        ballast.unlink()
        assert archive.pack().failed == []
        assert (contents(archive), numbers(archive)) == (digests(FILES), before)
        assert archive.catalog.counts().spool_instances == 0
        report = archive.verify(deep=True)
        assert (report.problems, report.notes) == ([], [])


def test_the_commands_say_in_one_line_that_the_disk_is_full(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sources = write_sources(tmp_path / "in", FILES)
    archive = os.fspath(root)
    ballast = fill(root.parent, 3 << 20)
    code = main(["-a", archive, "import", os.fspath(sources)])
    shown = capfd.readouterr()
    assert code == ExitCode.PART_FAILED
    assert "no space left in the archive" in shown.err
    assert "Traceback" not in shown.err
    ballast.unlink()
    assert main(["-a", archive, "import", os.fspath(sources)]) == ExitCode.DONE
    ballast = fill(root.parent, 0)
    capfd.readouterr()
    assert main(["-a", archive, "pack"]) == ExitCode.STORAGE
    shown = capfd.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert "No space left" in shown.err
    ballast.unlink()
    assert main(["-a", archive, "pack"]) == ExitCode.DONE
    assert main(["-a", archive, "verify", "--deep"]) == ExitCode.DONE


def test_with_the_default_minimum_a_small_disk_is_refused_by_name_of_the_setting(
    disk: Path, tmp_path: Path
) -> None:
    with Archive.create(disk / "archive") as archive:
        report = archive.import_paths([write_sources(tmp_path / "in", FILES[:2])])
    assert report.taken == 0
    assert all("archive.minimum_free_bytes" in one.reason for one in report.not_taken)


def test_other_files_leave_no_halves_on_a_full_disk(root: Path, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", {"large": bytes(4 << 20), "small": b"small"})
    with Archive.open(root) as archive:
        ballast = fill(root.parent, 2 << 20)
        report = archive.import_paths([sources], keep_others=True)
        assert (report.kept, len(report.not_taken)) == (1, 1)
        assert [path.name for path in archive.paths.kept_others.iterdir()] == ["small"]
        ballast.unlink()
        report = archive.import_paths([sources], keep_others=True)
        assert (report.kept, report.not_taken) == (2, [])
        assert sorted(path.name for path in archive.paths.kept_others.iterdir()) == ["large", "small"]
