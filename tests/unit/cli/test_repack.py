"""``dicomfs repack``, and what ``stat`` and ``status`` tell of profiles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.packing import repack
from tests import samples
from tests.archives import contents, digests, rows, write_sources

FILES = [*samples.ct_series(4, 24, 24), *samples.ct_series(3, 24, 24, 1, patient="Second^Patient")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of two packs, and a process that keeps its priority."""
    monkeypatch.setattr(os, "nice", lambda _: 0)
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([write_sources(tmp_path / "in", FILES)])
        archive.pack("fast")
    return tmp_path / "archive"


@pytest.fixture
def always_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repack, "LEAST_GAIN", -1e9)


def run(root: Path, *command: str) -> int:
    return main(["-a", str(root), *command])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def second(root: Path) -> str:
    """Path of the second patient's first file."""
    with Archive.open(root) as archive:
        return next("/patients/" + "/".join(place[:4]) for place, _ in rows(archive) if "Second" in place[0])


@pytest.mark.usefixtures("always_gains")
def test_what_lies_at_a_path_is_moved_and_explained(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = second(root)
    folder = path.rpartition("/")[0]
    assert run(root, "repack", "--profile", "dense", "--json", folder.rpartition("/")[0]) == ExitCode.DONE
    document = said(capsys)
    assert (document["moved"], document["kept"], document["failed"], document["stopped"]) == (1, 0, [], False)
    (pack,) = document["packs"]
    assert (pack["series"], pack["profile_before"], pack["moved"]) == ([folder], "fast", True)
    assert document["bytes_after"] == pack["bytes_after"] != pack["bytes_before"]
    assert pack["reason"]
    assert run(root, "repack", "--profile", "dense") == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.startswith("moved: ")
    assert "moved 1 packs" in out
    with Archive.open(root) as archive:
        assert contents(archive) == digests(FILES)


@pytest.mark.usefixtures("always_gains")
def test_status_and_stat_tell_the_profile_and_why(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = second(root)
    assert run(root, "repack", "--profile", "dense", "--json", path) == ExitCode.DONE
    capsys.readouterr()
    assert run(root, "status", "--json") == ExitCode.DONE
    status = said(capsys)
    assert set(status["pixel_bytes_by_profile"]) == {"dense", "fast"}
    assert sum(status["pixel_bytes_by_profile"].values()) == status["pixel_bytes"]
    assert run(root, "stat", "--json", path) == ExitCode.DONE
    ((stack,),) = [facts["stacks"] for facts in said(capsys)]
    assert (stack["profile"], stack["frames"]) == ("dense", 3)
    assert {"codec", "order", "references", "candidates", "reason", "segments", "bands"} <= stack.keys()
    assert run(root, "status") == ExitCode.DONE
    assert "  - dense\t" in capsys.readouterr().out
    assert run(root, "stat", path) == ExitCode.DONE
    out = capsys.readouterr().out
    for told in ("  profile\tdense", "  tried\t", "  reason\t", "  segments\t1 of 3 frames, 1 bands"):
        assert told in out


def test_what_gains_nothing_is_kept_with_a_reason(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "LEAST_GAIN", 0.9)
    uid = samples.uid("Sample^Patient", 0, 1)
    assert run(root, "repack", "--profile", "archive", uid) == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.startswith("kept: ")
    assert "gains" in out
    assert out.endswith("moved 0 packs: 0 B became 0 B (–); kept 1\n")


def test_a_path_that_is_not_there_is_an_error(root: Path) -> None:
    assert run(root, "repack", "--profile", "dense", "/patients/nobody") == ExitCode.NOT_FOUND


def test_what_cannot_be_moved_is_told_by_the_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (root / "local" / "pixel").glob("*/*"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-70])
    assert run(root, "repack", "--profile", "dense") == ExitCode.PART_FAILED
    captured = capsys.readouterr()
    assert captured.err.count("not moved: ") == 2
    assert "moved 0 packs" in captured.out
