"""Commands of dicomfs as processes of their own, met when they are at work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.server import CHECKOUT

PATIENCE_SECONDS = 120


def start(root: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command of dicomfs on an archive; what it says can be read from its pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "dicomfs", "-a", str(root), *command],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        text=True,
    )


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """What a process has used of processors so far, its threads together; 0 once it is gone."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_until(process: subprocess.Popen[str], at_work: Callable[[], bool]) -> None:
    """Wait until a process is at work, or ended."""
    began = time.monotonic()
    while process.poll() is None and not at_work():
        assert time.monotonic() - began < PATIENCE_SECONDS, "never began"
        time.sleep(0.002)
