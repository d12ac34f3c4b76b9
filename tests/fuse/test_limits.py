"""A disk that is full, out of inodes or read-only: reads go on, nothing is acknowledged, all comes back."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs import mounts
from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from tests import samples
from tests.archives import fill, set_minimum_free, small_disk
from tests.clients import Client
from tests.fuse.conftest import Serve, run
from tests.fuse.test_archive import digests
from tests.fuse.test_incoming import errno_of

pytestmark = pytest.mark.real_mount

PACKED, SPOOLED, LATER = samples.ct_series(3)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 24) as mounted:
        yield mounted


@pytest.fixture
def root(disk: Path) -> Path:
    """An archive with a stub, and a file that waits in the spool; its index is of another boot."""
    Archive.create(disk / "archive").close()
    set_minimum_free(disk / "archive", 0)
    with Archive.open(disk / "archive") as archive:
        client = Client(archive)
        client.put("packed.dcm", PACKED)
        archive.pack("fast")
        client.put("spooled.dcm", SPOOLED)
        client.close()
    (disk / "archive" / "index" / "boot").write_text("another boot", encoding="ascii")
    return disk / "archive"


def read_everything(mountpoint: Path) -> None:
    expected = {hashlib.sha256(data).hexdigest() for data in (PACKED, SPOOLED)}
    assert set(digests(mountpoint / "patients")) == expected
    assert (mountpoint / "incoming" / "packed.dcm").read_bytes() == PACKED
    assert (mountpoint / "incoming" / "spooled.dcm").read_bytes() == SPOOLED


def test_an_archive_on_a_read_only_disk_is_mounted_for_reading(
    disk: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    archive = os.fspath(root)
    assert main(["-a", archive, "mount", os.fspath(mountpoint)]) == ExitCode.DONE
    try:
        read_everything(mountpoint)
        assert errno_of(lambda: (mountpoint / "incoming" / "new").write_bytes(b"x")) == errno.EROFS
        for command in (["ls", "/patients"], ["status"], ["verify", "--deep"]):
            assert main(["-a", archive, *command]) == ExitCode.DONE
        capfd.readouterr()
        assert main(["-a", archive, "pack"]) == ExitCode.STORAGE
        assert len(capfd.readouterr().err.splitlines()) == 1
        claim = mounts.claim_of(root / "run", os.fspath(mountpoint))
        assert claim is not None
    finally:
        assert main(["umount", os.fspath(mountpoint)]) == ExitCode.DONE
    assert mounts.ended(claim)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert main(["-a", archive, "pack"]) == ExitCode.DONE


@pytest.mark.parametrize("left", [0, 4096])
def test_a_full_disk_is_mounted_and_takes_files_again_once_there_is_space(
    disk: Path, root: Path, serve_archive: Serve, left: int
) -> None:
    ballast = fill(disk, left)
    mountpoint = serve_archive(root).mountpoint
    read_everything(mountpoint)
    path = mountpoint / "incoming" / "later.dcm"
    assert errno_of(lambda: path.write_bytes(LATER)) in {errno.ENOSPC, errno.EROFS}
    read_everything(mountpoint)
    ballast.unlink()
    path.write_bytes(LATER)
    assert hashlib.sha256(LATER).hexdigest() in digests(mountpoint / "patients")
    assert len(digests(mountpoint / "patients")) == 3


def test_without_inodes_a_file_is_not_acknowledged_until_there_are_some(
    disk: Path, root: Path, serve_archive: Serve
) -> None:
    mountpoint = serve_archive(root).mountpoint
    path = mountpoint / "incoming" / "later.dcm"
    path.write_bytes(b"")
    taken = take_inodes(disk)
    assert errno_of(lambda: path.write_bytes(LATER)) == errno.ENOSPC
    assert errno_of(lambda: (mountpoint / "incoming" / "new").write_bytes(b"")) == errno.ENOSPC
    read_everything(mountpoint)
    run("rm", "-r", taken)
    path.write_bytes(LATER)
    assert hashlib.sha256(LATER).hexdigest() in digests(mountpoint / "patients")


def take_inodes(disk: Path) -> Path:
    """Make files until there can be no more."""
    subprocess.run(["mount", "-o", f"remount,nr_inodes={inodes(disk) + 16}", disk], check=True)
    folder = disk / "many"
    folder.mkdir()
    number = 0
    while errno_of((folder / str(number)).touch) is None:
        number += 1
    return folder


def inodes(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_files - status.f_ffree
