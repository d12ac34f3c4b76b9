"""Mounts for tests: started in a process of their own, and gone at the end whatever the test did."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

MEMORY = (sys.executable, "-m", "tests.fuse.serve_memory")
ARCHIVE = (sys.executable, "-m", "tests.fuse.serve_archive")


class Served:
    """A mount served by another process, which may take commands on standard input."""

    def __init__(self, program: Sequence[str], mountpoint: Path, *arguments: object) -> None:
        self.mountpoint = mountpoint
        self.log = mountpoint.with_suffix(".log")
        command = [*program, str(mountpoint), *map(str, arguments)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def wait_ready(self) -> None:
        assert self._answer() == "ready", self.log.read_text()

    def tell(self, *words: str) -> None:
        """Give a command and wait until it is obeyed."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        assert self._answer() == "done", self.log.read_text()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """End the process by its id and clear the mount point."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        if is_mounted(self.mountpoint):
            subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], check=False)


def is_mounted(mountpoint: Path) -> bool:
    """Whether the kernel lists something there; asks no daemon."""
    return any(
        line.split(" ")[4] == str(mountpoint)
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    )


Serve = Callable[..., Served]


def _starter(program: Sequence[str], folder: Path) -> Iterator[Serve]:
    running: list[Served] = []

    def start(*arguments: object) -> Served:
        mountpoint = folder / f"mount{len(running)}"
        mountpoint.mkdir()
        served = Served(program, mountpoint, *arguments)
        running.append(served)
        served.wait_ready()
        return served

    yield start
    for served in running:
        served.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts mounts of archives in memory: ``serve(count, *options)``."""
    yield from _starter(MEMORY, tmp_path)


@pytest.fixture
def serve_archive(tmp_path: Path) -> Iterator[Serve]:
    """Starts mounts of archives on disk: ``serve_archive(archive, *options)``."""
    yield from _starter(ARCHIVE, tmp_path)


def run(
    *command: object, timeout: float = 60, check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run a program and return its standard output."""
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, env=env)
    if check:
        assert done.returncode == 0, done.stderr
    return done.stdout
