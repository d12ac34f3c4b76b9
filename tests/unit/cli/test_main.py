"""The ``dicomfs`` command as a whole: errors become one line and a code, mount(8) is understood."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dicomfs import cli, errors
from dicomfs.cli import COMMANDS, from_mount8, main
from dicomfs.cli.exit_codes import ExitCode, exit_code

PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_archive_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOMFS_ARCHIVE", raising=False)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Make every command line raise what the test puts into the list."""
    held: list[BaseException] = []

    def run(*_args: object, **_options: object) -> None:
        raise held[0]

    monkeypatch.setattr(cli.cli, "main", run)
    return held


def every_error(kind: type[errors.DicomfsError] = errors.DicomfsError) -> list[type[errors.DicomfsError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in every_error(below))]


def made(kind: type[errors.DicomfsError]) -> errors.DicomfsError:
    error = kind.__new__(kind)
    Exception.__init__(error, "what happened")
    return error


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_becomes_one_line_and_its_exit_code(
    kind: type[errors.DicomfsError], raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    raising.append(made(kind))
    code = main(["status"])
    assert code == exit_code(made(kind)) != ExitCode.DONE
    assert capsys.readouterr().err == "dicomfs: what happened\n"


def test_a_newer_format_is_told_apart_from_damage() -> None:
    assert exit_code(errors.UnsupportedVersion("pack", 2, 1)) is ExitCode.TOO_NEW
    assert exit_code(errors.DamagedError("pack", "cut off")) is ExitCode.PART_FAILED


def test_ctrl_c_ends_with_130(raising: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    raising.append(KeyboardInterrupt())
    assert main(["status"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_system_error_names_the_file(
    raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    raising.append(PermissionError(13, "Permission denied", "/srv/archive"))
    assert main(["status"]) == ExitCode.STORAGE
    assert capsys.readouterr().err == "dicomfs: /srv/archive: Permission denied\n"


def test_a_defect_shows_no_traceback(
    raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    raising.append(ZeroDivisionError("secret of a patient"))
    assert main(["status"]) == ExitCode.INTERNAL
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "secret" not in shown
    assert "Traceback" not in shown


def test_a_command_without_an_archive_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == ExitCode.USAGE
    assert "DICOMFS_ARCHIVE" in capsys.readouterr().err


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["improt"]) == ExitCode.USAGE
    assert "improt" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_one_line_summary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == ExitCode.DONE
    assert f"dicomfs {name}" in capsys.readouterr().out
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_calls_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == ExitCode.DONE
    assert "_DICOMFS_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    "called,ours",
    [
        (["/srv/a", "/mnt/d", "-o", "ro"], ["-a", "/srv/a", "mount", "/mnt/d", "-o", "ro"]),
        (["/srv/a", "/mnt/d", "-n", "-s", "-o", "ro"], ["-a", "/srv/a", "mount", "/mnt/d", "-o", "ro"]),
        (["./a", "mnt"], ["-a", "./a", "mount", "mnt"]),
        (["-a", "/srv/a", "mount", "/mnt"], ["-a", "/srv/a", "mount", "/mnt"]),
        (["import", "/data"], ["import", "/data"]),
        ([], []),
    ],
)
def test_how_mount8_calls_a_filesystem_is_understood(called: list[str], ours: list[str]) -> None:
    assert from_mount8(called) == ours


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "dicomfs", "completion", "bash"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == ExitCode.PIPE_CLOSED
    assert ended.stderr == b""


def test_umount_does_not_load_what_only_archives_need() -> None:
    heavy = {"av", "lmdb", "numpy", "pyfuse3"}
    script = f"import sys, dicomfs.cli.umount; print(*sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    assert ended.stdout.strip() == ""
