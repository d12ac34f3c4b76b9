"""Real `dicomfs import` and `dicomfs pack` processes, ended with SIGKILL at moments nobody chose."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import samples
from tests.crash.processes import start, wait_until
from tests.crash.server import Server

ROUNDS = 5
LONGEST_SECONDS = 0.35


def kill_at_work(process: subprocess.Popen[str], at_work: Callable[[], bool], seconds: float) -> bool:
    """Kill a process some time after it began to work; whether it was still alive."""
    wait_until(process, at_work)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_imports_and_packs_lose_nothing(tmp_path: Path, server: Server, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "archive"
    server.run("create", str(root))
    killed = 0
    sources = []
    accepted: set[str] = set()
    for number in range(ROUNDS):
        source = tmp_path / f"source{number}"
        source.mkdir()
        sources.append(str(source))
        for index, data in enumerate(samples.ct_series(24, 96, 96, seed=10 * seed + number)):
            (source / f"{index}.dcm").write_bytes(data)
        spool, staging = root / "spool" / "tmp", root / "staging"
        jobs = [
            (("import", str(source)), lambda spool=spool: any(spool.glob("*/*.part"))),
            (("pack", "--profile", "fast"), lambda staging=staging: any(staging.iterdir())),
        ]
        for command, at_work in jobs:
            process = start(root, *command)
            killed += kill_at_work(process, at_work, chance.uniform(0, LONGEST_SECONDS))
            look = server.run("look", str(root)).value
            assert look["problems"] == []
            shown = [found[0] for found in look["tree"].values()]
            assert len(shown) == len(set(shown))
            assert accepted <= set(shown)
            accepted = set(shown)
        server.run("import_files", str(root), str(source))
        accepted = {found[0] for found in server.run("look", str(root)).value["tree"].values()}
        assert len(accepted) == 24 * (number + 1)
    end = server.run("finish", str(root), *sources).value
    assert len(end["tree"]) == 24 * ROUNDS
    assert (end["problems"], end["notes"], end["left"]) == ([], [], [])
    assert killed >= ROUNDS // 2
