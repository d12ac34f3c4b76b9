"""Starting a process that outlives the command, and learning how its start went."""

from __future__ import annotations

import sys
from pathlib import Path

from dicomfs import background

SCRIPT = """
import os, sys, time
from dicomfs import background
number = int(sys.argv[-1])
{body}
"""


def command(body: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT.format(body=body)]


def test_returns_as_soon_as_the_process_serves_and_keeps_its_output(tmp_path: Path) -> None:
    body = "print('hello', flush=True); background.tell_ready(number)"
    assert background.start(command(body), tmp_path, "mount") is None
    (log,) = tmp_path.iterdir()
    assert log.name.startswith("mount-")
    assert log.read_text() == "hello\n"


def test_an_error_comes_back_with_the_exit_code(tmp_path: Path) -> None:
    body = "background.tell_error(number, 'no such folder: ä'); sys.exit(2)"
    failed = background.start(command(body), tmp_path, "mount")
    assert failed == background.Failed(2, "no such folder: ä")


def test_a_process_that_dies_without_a_word_is_noticed(tmp_path: Path) -> None:
    failed = background.start(command("os.abort()"), tmp_path, "mount")
    assert failed is not None
    assert failed.exit_code != 0
    assert "mount-" in failed.text


def test_a_process_that_never_answers_is_ended(tmp_path: Path) -> None:
    failed = background.start(command("time.sleep(600)"), tmp_path, "mount", seconds=0.5)
    assert failed is not None
    assert failed.exit_code == -9
