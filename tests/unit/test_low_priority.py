"""When a mount has work done, and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomfs import low_priority
from dicomfs.archive import Archive
from dicomfs.low_priority import LowPriorityWork
from tests import samples
from tests.conftest import CHECKOUT


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_priority, "LOOK_SECONDS", 0.01)


def test_a_process_runs_when_something_is_due_and_again_after_the_pause(tmp_path: Path) -> None:
    made = tmp_path / "runs"
    program = f"open({str(made)!r}, 'a').write('x')"
    working = LowPriorityWork("work", lambda: True, [sys.executable, "-c", program], 0.02)
    working.start()
    until(lambda: made.exists() and len(made.read_text()) >= 2)
    working.stop()


@pytest.mark.parametrize("code, runs", [(0, 3), (1, 1)])
def test_under_pressure_runs_follow_each_other_unless_one_fails(tmp_path: Path, code: int, runs: int) -> None:
    made = tmp_path / "runs"
    program = f"open({str(made)!r}, 'a').write('x'); raise SystemExit({code})"
    asked: list[bool] = []

    def due() -> bool:
        asked.append(True)
        return True

    packing = LowPriorityWork("work", due, [sys.executable, "-c", program], 3600, lambda: True)
    packing.start()
    until(lambda: made.exists() and len(made.read_text()) >= runs)
    packing.stop()
    assert code == 0 or len(asked) == 1


def test_nothing_runs_while_nothing_is_due(tmp_path: Path) -> None:
    asked: list[bool] = []

    def never() -> bool:
        asked.append(True)
        return False

    working = LowPriorityWork("work", never, ["/nonexistent"], 0)
    working.start()
    until(lambda: len(asked) > 3)
    working.stop()


def test_failures_are_logged_and_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    working = LowPriorityWork("work", lambda: True, ["/nonexistent"], 0)
    working.start()
    until(lambda: caplog.text.count("work: not done") > 1)
    working.stop()


def test_stopping_ends_the_process(tmp_path: Path) -> None:
    made = tmp_path / "pid"
    program = f"import os,time; open({str(made)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    working = LowPriorityWork("work", lambda: True, [sys.executable, "-c", program], 0)
    working.start()
    until(lambda: made.exists() and made.read_text())
    working.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(made.read_text()), 0)


def test_the_process_stands_back_and_dies_with_its_parent(tmp_path: Path) -> None:
    made = tmp_path / "nice"
    child = (
        "import os, sys, time; from dicomfs.low_priority import yield_to_others;"
        f"yield_to_others(int(sys.argv[1])); made = open({str(made)!r}, 'w');"
        "made.write(f'{os.nice(0)} {os.getpid()}'); made.close(); time.sleep(60)"
    )
    parent = (
        f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=CHECKOUT)
    until(lambda: made.exists() and made.read_text())
    nice, pid = made.read_text().split()
    assert int(nice) == min(19, os.nice(0) + low_priority.LOW_PRIORITY)
    process.kill()
    process.wait()
    until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    )


def test_a_series_is_quiet_when_it_got_nothing_for_a_while_or_space_is_short(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "archive") as archive:
        for seed, name in ((0, "old"), (1, "new")):
            (tmp_path / name).write_bytes(samples.ct_series(1, 16, 16, seed)[0])
            archive.import_paths([tmp_path / name])
        old, new = archive.catalog.spooled_series()
        folder = archive.spool.folder / f"{old:010x}"
        os.utime(folder, (time.time() - 1000, time.time() - 1000))
        assert archive.quiet_series() == [old]
        report = archive.pack("fast", only=archive.quiet_series())
        assert (report.series, archive.catalog.spooled_series()) == (1, [new])
        assert archive.spool.changed_s(old) == 0
    (tmp_path / "archive" / "dicomfs.toml").write_text("[pack]\nspool_bytes = 1\n")
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.quiet_series() == [new]
