"""``dicomfs mount`` and ``umount`` as people call them: places with odd names, and places that cannot be."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs import mounts
from dicomfs.archive import Archive
from dicomfs.cli.exit_codes import ExitCode
from tests import samples
from tests.archives import fill, small_disk, write_sources
from tests.conftest import CHECKOUT
from tests.fuse.conftest import is_mounted

pytestmark = pytest.mark.real_mount


def dicomfs(*words: object) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    done = subprocess.run(
        [sys.executable, "-m", "dicomfs", *map(str, words)],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount point that is cleared at the end."""
    folder = tmp_path / "mount"
    folder.mkdir()
    yield folder
    for mount in mounts.mount_table():
        if Path(mount.mountpoint).is_relative_to(tmp_path):
            subprocess.run(["fusermount3", "-uz", "--", mount.mountpoint], check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of a few files in a folder with a name of odd characters."""
    folder = tmp_path / "Röntgen, 2% \\b 日"
    with Archive.create(folder) as archive:
        archive.import_paths([write_sources(tmp_path / "sources", samples.ct_series(3))])
    return folder


def claims(root: Path) -> list[Path]:
    return list((root / "run").glob("mount-*.lock"))


@pytest.mark.parametrize("name", ["plain", "ä日 x", "a,b\\c", "line\u2028break"])
def test_umount_ends_the_process_of_a_mount_at_any_name(root: Path, place: Path, name: str) -> None:
    mountpoint = place / name
    mountpoint.mkdir()
    assert dicomfs("-a", root, "mount", mountpoint) == (ExitCode.DONE, "")
    assert len(list(mountpoint.glob("patients/*/*/*/*.dcm"))) == 3
    assert len(claims(root)) == 1
    assert dicomfs("umount", mountpoint) == (ExitCode.DONE, "")
    assert claims(root) == []


def test_a_mount_through_a_symbolic_link_is_ended_through_the_link(root: Path, place: Path) -> None:
    link = place.parent / "link"
    link.symlink_to(place)
    assert dicomfs("-a", root, "mount", link)[0] == ExitCode.DONE
    code, said = dicomfs("-a", root, "mount", link)
    assert (code, "mounted there already" in said) == (ExitCode.USAGE, True)
    assert dicomfs("umount", link) == (ExitCode.DONE, "")
    assert claims(root) == []


def test_a_mount_that_would_hide_its_archive_is_refused(root: Path) -> None:
    for mountpoint in (root, root / "local", root.parent):
        code, said = dicomfs("-a", root, "mount", mountpoint)
        assert (code, said.count("\n")) == (ExitCode.USAGE, 1)
        assert f"cannot mount at {mountpoint}" in said
        assert not is_mounted(mountpoint)


def test_more_files_than_the_usual_limit_are_open_at_once(root: Path, place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert dicomfs("-a", root, "mount", place)[0] == ExitCode.DONE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = list(place.glob("patients/*/*/*/*.dcm"))
    opened = [os.open(path, os.O_RDONLY) for path in files * 40]
    assert all(len(os.pread(descriptor, 1, 0)) == 1 for descriptor in opened)
    for descriptor in opened:
        os.close(descriptor)
    assert dicomfs("umount", place) == (ExitCode.DONE, "")


def test_a_mount_that_finds_no_space_to_begin_incoming_shows_the_rest(tmp_path: Path, place: Path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        with Archive.create(disk / "archive"):
            pass
        fill(disk, 0)
        assert dicomfs("-a", disk / "archive", "mount", place)[0] == ExitCode.DONE
        try:
            assert {entry.name for entry in place.iterdir()} >= {"patients", "versions", ".dicomfs"}
        finally:
            assert dicomfs("umount", place)[0] == ExitCode.DONE
