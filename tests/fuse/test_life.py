"""The mount's life: change while mounted, damage, crashes, and the end."""

# ruff: noqa: PTH208 - the tests are about the system calls
from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomfs.model import InstanceId
from tests.fuse.conftest import MEMORY, Serve, Served, is_mounted, run
from tests.mount_fakes import FOLDER, content

pytestmark = pytest.mark.real_mount

PATIENCE = 20.0
"""Seconds after which something that happens by itself counts as not happening."""


def within(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def folder_of(served: Served) -> Path:
    return served.mountpoint / "patients" / FOLDER


Reading = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def reading() -> Iterator[Reading]:
    """Starts processes that read a file: one that hangs can be ended, a thread of the test cannot."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_what_is_accepted_while_mounted_is_there_at_once(serve: Serve) -> None:
    served = serve(2)
    folder = folder_of(served)
    before = folder.stat().st_mtime_ns
    with pytest.raises(FileNotFoundError):
        (folder / "000003.dcm").stat()
    served.tell("add", "000003.dcm")
    assert (folder / "000003.dcm").read_bytes() == content(InstanceId(9, 2))
    assert "000003.dcm" in os.listdir(folder)
    assert within(lambda: folder.stat().st_mtime_ns > before)


def test_a_name_with_newer_bytes_shows_them_and_the_older_ones_under_versions(serve: Serve) -> None:
    served = serve(2)
    file = folder_of(served) / "000001.dcm"
    old = content(InstanceId(9, 0))
    assert file.read_bytes() == old
    with file.open("rb") as still_open:
        served.tell("supersede", "000001.dcm")
        assert within(lambda: file.read_bytes() == content(InstanceId(9, 2)))
        assert still_open.read() == old
    kept = served.mountpoint / "versions" / FOLDER / "000001.dcm" / "1.dcm"
    assert kept.read_bytes() == old


def test_a_change_feed_that_was_lost_makes_the_kernel_forget_the_whole_tree(serve: Serve) -> None:
    served = serve(2)
    file = folder_of(served) / "000001.dcm"
    assert file.stat().st_ino == (1 << 62 | 1 << 60 | 9 << 23)
    served.tell("forget")
    served.tell("supersede", "000001.dcm")
    assert within(lambda: file.stat().st_ino == (1 << 62 | 1 << 60 | 9 << 23 | 2))


@pytest.mark.parametrize("trouble", ["mismatch", "damaged", "cold", "stray"])
def test_bytes_that_cannot_be_had_intact_are_an_io_error_and_the_mount_lives(
    serve: Serve, trouble: str
) -> None:
    served = serve(2)
    served.tell("trouble", "000001.dcm", trouble)
    with pytest.raises(OSError, match="Input/output error"):
        (folder_of(served) / "000001.dcm").read_bytes()
    assert (folder_of(served) / "000002.dcm").read_bytes() == content(InstanceId(9, 1))
    log = served.log.read_text()
    assert "read of" in log
    assert "Doe" not in log


def test_a_stray_exception_in_a_lookup_is_an_io_error_and_the_mount_lives(serve: Serve) -> None:
    served = serve(2)
    served.tell("break")
    with pytest.raises(OSError, match="Input/output error"):
        (folder_of(served) / "000001.dcm").stat()
    assert len(os.listdir(folder_of(served))) == 2


def test_invalidation_while_a_read_is_pending_blocks_nothing(serve: Serve, reading: Reading) -> None:
    served = serve(3)
    folder = folder_of(served)
    served.tell("trouble", "000001.dcm", "hang")
    pending = reading(folder / "000001.dcm")
    served.tell("held")
    for _ in range(3):
        served.tell("supersede", "000001.dcm")
        served.tell("supersede", "000002.dcm")
        time.sleep(0.15)
    look = "import os,sys; os.stat(sys.argv[1]); os.listdir(sys.argv[2]); open(sys.argv[1],'rb').read()"
    run(sys.executable, "-c", look, folder / "000003.dcm", folder, timeout=PATIENCE)
    served.tell("release")
    assert pending.communicate(timeout=PATIENCE)[0] == content(InstanceId(9, 0))


def test_a_killed_daemon_with_busy_decoders_gives_errors_at_once(serve: Serve, reading: Reading) -> None:
    served = serve(4)
    folder = folder_of(served)
    readers = []
    for number in range(1, 4):
        served.tell("trouble", f"00000{number}.dcm", "spin")
        readers.append(reading(folder / f"00000{number}.dcm"))
    served.tell("held")
    children = Path(f"/proc/{served.process.pid}/task").glob("*/children")
    assert "".join(path.read_text() for path in children) == ""
    known = folder / "000004.dcm"
    known.stat()
    served.process.send_signal(signal.SIGKILL)
    look = "import os,sys\ntry: os.stat(sys.argv[1])\nexcept OSError as e: print(e.errno)"
    dead = str(errno.ENOTCONN)

    def answer(path: Path) -> str:
        return run(sys.executable, "-c", look, path, timeout=PATIENCE).strip()

    assert within(lambda: answer(folder / "000005.dcm") == dead)
    assert within(lambda: answer(known) == dead), "what the kernel has cached outlives the daemon"
    for reader in readers:
        assert reader.communicate(timeout=PATIENCE)[1]
        assert reader.returncode


def test_the_end_signals_unmount_and_exit_with_success(serve: Serve) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        served = serve(1)
        served.process.send_signal(number)
        assert served.process.wait(PATIENCE) == 0
        assert not is_mounted(served.mountpoint)


def test_an_unmount_from_outside_ends_the_process_with_success(serve: Serve) -> None:
    served = serve(1)
    run("umount", served.mountpoint)
    assert served.process.wait(PATIENCE) == 0


def test_the_end_waits_for_a_pending_read_that_finishes(serve: Serve, reading: Reading) -> None:
    served = serve(1)
    served.tell("trouble", "000001.dcm", "hang")
    pending = reading(folder_of(served) / "000001.dcm")
    served.tell("held")
    served.process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, served.tell, ("release",)).start()
    assert served.process.wait(PATIENCE) == 0
    pending.communicate(timeout=PATIENCE)


def test_the_end_does_not_wait_for_ever_for_a_read_that_hangs(serve: Serve, reading: Reading) -> None:
    served = serve(1)
    served.tell("trouble", "000001.dcm", "hang")
    pending = reading(folder_of(served) / "000001.dcm")
    served.tell("held")
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(3 * PATIENCE) == 0
    assert pending.communicate(timeout=PATIENCE)[1]
    assert not is_mounted(served.mountpoint)


def test_the_end_does_not_wait_for_ever_for_a_drop_behind_a_listing_that_hangs(serve: Serve) -> None:
    served = serve(2)
    known = folder_of(served) / "000001.dcm"
    known.stat()
    served.tell("hang-listing")
    listing = subprocess.Popen(
        ["ls", str(known.parent)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    served.tell("listing-held")
    served.tell("supersede", "000001.dcm")
    time.sleep(0.5)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0
    assert listing.wait(PATIENCE) != 0
    assert not is_mounted(served.mountpoint)


def test_two_mounts_stand_side_by_side(serve: Serve) -> None:
    first, second = serve(1), serve(2)
    assert len(os.listdir(folder_of(first))) == 1
    assert len(os.listdir(folder_of(second))) == 2
    first.end()
    assert (folder_of(second) / "000002.dcm").read_bytes() == content(InstanceId(9, 1))


def test_a_mount_point_can_be_used_again_and_again(tmp_path: Path) -> None:
    mountpoint = tmp_path / "again"
    mountpoint.mkdir()
    for _ in range(3):
        served = Served(MEMORY, mountpoint, 1)
        try:
            served.wait_ready()
            assert (folder_of(served) / "000001.dcm").read_bytes() == content(InstanceId(9, 0))
        finally:
            served.end()
        assert os.listdir(mountpoint) == []


def test_the_stacks_of_a_process_that_hangs_are_shown_on_request(serve: Serve) -> None:
    served = serve(1)
    served.process.send_signal(signal.SIGUSR1)
    assert within(lambda: "Thread 0x" in served.log.read_text() or "Current thread" in served.log.read_text())
    assert len(os.listdir(folder_of(served))) == 1
