"""Real `dicomfs scp` processes and the programs of DCMTK that send to them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SECONDS = 60


@dataclass
class Scp:
    """A running `dicomfs scp`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        """Where it listens; waits until it does."""
        deadline = time.monotonic() + SECONDS
        while True:
            found = re.search(r"event=listening .*port=(\d+)", self.text())
            if found:
                return int(found[1])
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, "does not listen"
            time.sleep(0.01)

    def text(self) -> str:
        """What it logged."""
        return self.log.read_text(encoding="utf-8")

    def lines(self, event: str) -> list[dict[str, str]]:
        """The logged lines of an event, by key."""
        found = []
        for line in self.text().splitlines():
            fields = {key: bare or quoted for key, quoted, bare in _FIELD.findall(line)}
            if fields.get("event") == event:
                found.append(fields)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


_FIELD = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')


@contextlib.contextmanager
def scp(log: Path, *arguments: str | Path, archive: Path | None = None) -> Iterator[Scp]:
    """Run `dicomfs scp` as ARCHIVE on a free port of the loopback; killed at the end if it still runs."""
    command = [sys.executable, "-m", "dicomfs", *(["-a", str(archive)] if archive else []), "scp"]
    command += ["--ae-title", "ARCHIVE", "--port", "0", "--address", "127.0.0.1", *map(str, arguments)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
    try:
        yield Scp(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of DCMTK, not pynetdicom's of the same name, which a virtual environment puts first."""
    found = shutil.which(program, path="/usr/bin:/usr/local/bin")
    assert found, f"{program} is missing: apt-get install dcmtk"
    return subprocess.run(
        [found, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
