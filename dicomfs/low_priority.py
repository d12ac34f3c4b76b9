"""Has work done while an archive is mounted, by a process of its own at low priority.

Owns when that process is started and that there is one at a time; what it does is up to its command.  It is
started as a new program, never forked from the mount (docs/concurrency.md), and ends with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence

LOOK_SECONDS = 5.0
LOW_PRIORITY = 10
"""That of nice(2): about a tenth of what others get.  Lower still, and a busy machine would keep the packer
from running while it holds a lock that a mount or an import waits for."""
_PR_SET_PDEATHSIG = 1
_IOPRIO_SET, _IOPRIO_WHO_PROCESS, _IOPRIO_LAST = 251, 1, 2 << 13 | 7
"""System call number on x86-64; elsewhere the disk's priority stays as it is.  Last of those that get a turn
for sure: the class *idle* may never get one, with the same end."""

_log = logging.getLogger(__name__)


class LowPriorityWork:
    """A thread that starts a process when there is something for it."""

    def __init__(
        self,
        what: str,
        is_due: Callable[[], bool],
        command: Sequence[str],
        pause_seconds: float,
        is_pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        """``what`` is for the log; ``pause_seconds`` lie between two runs at least.

        So what fails is not tried without end.  After a run that went well the next one may follow at once
        while ``is_pressed``: space is short.
        """
        self._what, self._is_due, self._is_pressed, self._command = what, is_due, is_pressed, list(command)
        self._pause_seconds = max(pause_seconds, LOOK_SECONDS)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="dicomfs-work", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, and the process with it: its work may be cut short anywhere."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
        self._thread.join()

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._stopping.wait(pause):
            pause = LOOK_SECONDS
            try:
                if self._is_due():
                    went_well = self._work()
                    if not (went_well and self._is_pressed()):
                        pause = self._pause_seconds
            except Exception as problem:
                _log.warning("%s: not done: %s", self._what, problem)
                pause = self._pause_seconds

    def _work(self) -> bool:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if self._stopping.is_set():
            self._process.terminate()
        code = self._process.wait()
        self._process = None
        if code and not self._stopping.is_set():
            _log.warning("%s: ended with %d", self._what, code)
        return not code


def yield_to_others(parent: int) -> None:
    """Give this process a low priority, and have it end when its parent does."""
    os.nice(LOW_PRIORITY)
    libc = ctypes.CDLL(None, use_errno=True)
    if os.uname().machine == "x86_64":
        libc.syscall(_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_LAST)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before we asked to be told.
        os.kill(os.getpid(), signal.SIGTERM)
