"""Where keys come from, in which order, and that a command can neither hang us nor show what it printed."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

import pytest

from dicomfs.config import KeySettings
from dicomfs.crypto.key_sources import from_command, load_keys
from dicomfs.crypto.keys import ArchiveKey, write_key_file
from dicomfs.errors import ConfigError, UsageError

ONE, TWO, THREE = (ArchiveKey(bytes([number]) * 32) for number in (1, 2, 3))


def _files(folder: Path) -> tuple[Path, Path]:
    write_key_file(folder / "one.key", ONE)
    write_key_file(folder / "two.key", TWO)
    return folder / "one.key", folder / "two.key"


def _python(code: str) -> str:
    return f"{sys.executable} -c '{code}'"


def test_without_a_setting_there_are_no_keys(tmp_path: Path) -> None:
    assert load_keys(KeySettings(), tmp_path, {}) == ()
    assert load_keys(KeySettings(), tmp_path, {"DICOMFS_KEY": "", "DICOMFS_KEY_FILE": ""}) == ()


def test_the_environment_wins_over_settings_and_the_key_over_its_file(tmp_path: Path) -> None:
    one, two = _files(tmp_path)
    settings = KeySettings(file=str(one))
    assert load_keys(settings, tmp_path, {}) == (ONE,)
    assert load_keys(settings, tmp_path, {"DICOMFS_KEY_FILE": str(two)}) == (TWO,)
    environment = {"DICOMFS_KEY_FILE": str(two), "DICOMFS_KEY": THREE.secret.hex()}
    assert load_keys(settings, tmp_path, environment) == (THREE,)


def test_key_files_are_named_from_the_archive_on_and_keep_their_order(tmp_path: Path) -> None:
    _files(tmp_path)
    assert load_keys(KeySettings(file=["two.key", "one.key"]), tmp_path, {}) == (TWO, ONE)


def test_a_key_file_that_is_set_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        load_keys(KeySettings(file="absent"), tmp_path, {})
    with pytest.raises(UsageError, match="absent"):
        load_keys(KeySettings(), tmp_path, {"DICOMFS_KEY_FILE": str(tmp_path / "absent")})


def test_file_and_command_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dicomfs\.toml: keys: set file or command, not both"):
        load_keys(KeySettings(file="a", command="b"), tmp_path, {})


def test_a_command_prints_the_key(tmp_path: Path) -> None:
    command = _python(f'print("{ONE.secret.hex()}")')
    assert load_keys(KeySettings(command=command), tmp_path, {}) == (ONE,)


@pytest.mark.parametrize(
    "command,problem",
    [
        ("", "cannot be run"),
        ("/nowhere/command", "cannot be run"),
        ("'unbalanced", "cannot be run"),
        (_python('print("01" * 31)'), "no archive key"),
        (_python(f'print("{ONE.secret.hex()}"); raise SystemExit(3)'), "ended with 3"),
        (_python('import sys; sys.stdout.buffer.write(b"\\xff" * 32)'), "does not print text"),
        (_python("import os; os.kill(os.getpid(), 9)"), "ended with -9"),
    ],
)
def test_a_command_that_fails_is_an_error_without_its_output(command: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        from_command(command)
    shown = "".join(traceback.format_exception(caught.value)).replace(command, "")
    assert "0101" not in shown


def test_a_command_is_run_without_a_shell_and_without_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        from_command(f"true; touch {tmp_path / 'made'}")
    assert not (tmp_path / "made").exists()
    with pytest.raises(UsageError, match="no archive key"):
        from_command("cat")


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    code = (
        "import subprocess, time, pathlib;"
        'p = subprocess.Popen(["sleep", "300"]);'
        f'pathlib.Path("{started}").write_text(str(p.pid));'
        "time.sleep(300)"
    )
    with pytest.raises(UsageError, match="no answer"):
        from_command(_python(code), seconds=3.0)
    end = time.monotonic() + 30
    while _runs(int(started.read_text())):
        assert time.monotonic() < end, "what the command started still runs"
        time.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
