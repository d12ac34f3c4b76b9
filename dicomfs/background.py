"""Starts a serving process that outlives the command, and learns from it how the start went.

Owns the pipe between the two: the started process writes one zero byte when it serves, or the text of its
error; then it closes the pipe.  A process that dies without a word is noticed by the closed pipe.  This
process is never forked into a daemon: the other is a new program (docs/concurrency.md).
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READY = b"\0"
_MOST_TEXT = 1 << 16


@dataclass(frozen=True, slots=True)
class Failed:
    """The process did not come up."""

    exit_code: int
    text: str


def start(command: Sequence[str], run: Path, name: str, seconds: float = 60.0) -> Failed | None:
    """Start `command` with ``--ready-fd N`` added and wait until it serves; return None when it does.

    Its output goes to ``<run>/<name>-<pid>.log``.  One that does not answer within `seconds` is ended.
    """
    reader, writer = os.pipe()
    starting = run / f"{name}-starting-{os.getpid()}.log"
    try:
        descriptor, written = _log_file(starting)
        try:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
            os.close(writer)
        log = starting.rename(run / f"{name}-{process.pid}.log") if written else Path(os.devnull)
        answer = _answer(reader, seconds)
    finally:
        os.close(reader)
    if answer.startswith(READY):
        # The process goes on without us; without this Python would warn that nobody waited for it.
        process.returncode = 0
        return None
    if answer == b"":
        process.kill()
        return Failed(process.wait(), f"ended before it served; see {log}")
    return Failed(process.wait(), answer.decode("utf-8", "replace"))


def _log_file(path: Path) -> tuple[int, bool]:
    """A descriptor to log to, and whether it is the file: a full or read-only disk takes none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), True
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), False


def _answer(reader: int, seconds: float) -> bytes:
    """Return what comes through the pipe: up to the ready byte, its end, or the time limit."""
    answer = b""
    deadline = time.monotonic() + seconds
    while len(answer) < _MOST_TEXT:
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        chunk = os.read(reader, _MOST_TEXT)
        answer += chunk
        if not chunk or answer.startswith(READY):
            break
    return answer


def tell_ready(descriptor: int) -> None:
    """Say in the started process that it serves now."""
    _tell(descriptor, READY)


def tell_error(descriptor: int, text: str) -> None:
    """Say in the started process why it does not serve."""
    _tell(descriptor, text.encode("utf-8", "replace"))


def _tell(descriptor: int, message: bytes) -> None:
    try:
        os.write(descriptor, message)
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)
