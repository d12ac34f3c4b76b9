"""Locks between processes: held by the living only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicomfs.errors import CatalogBusy
from dicomfs.locks import locked, try_lock

HOLD = "import sys, pathlib; from dicomfs.locks import try_lock; d = try_lock(pathlib.Path(sys.argv[1]));"


def test_a_lock_is_held_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        assert try_lock(path) is None
        with pytest.raises(CatalogBusy, match="packing"), locked(path, wait=False, doing="packing"):
            pytest.fail("two hold one lock")
    descriptor = try_lock(path)
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_is_free_when_its_holder_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = HOLD + "print(d, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() not in (b"None", b"")
        assert try_lock(path) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_who_waits_gets_it_next(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order = []

    def wait() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_is_free_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    with locked(tmp_path / "lock", wait=False):
        pass
