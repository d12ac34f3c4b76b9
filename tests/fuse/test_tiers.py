"""Mounts of archives on several tiers: rules applied meanwhile, where bytes are, pins set by attribute."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import digests, objects
from tests.fuse.conftest import Serve, run
from tests.tiered import EXTERNAL, FILES, LABORATORY, three_tiers

pytestmark = pytest.mark.real_mount

RULES = {
    "local": "keep_days = 0\nkeep_used_days = 0",
    LABORATORY: "copy_after_days = 0",
    EXTERNAL: "copy_after_days = 0",
}


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_rules_are_applied_while_mounted_and_attributes_tell_and_act(
    tmp_path: Path, serve_archive: Serve
) -> None:
    with three_tiers(tmp_path, tiers=RULES) as archive:
        served = serve_archive(archive.paths.root)
        patients = served.mountpoint / "patients"
        until(lambda: {path.parts[-3] for path in objects(archive)} <= {"header", "snapshot", "local"})
        files = sorted(patients.rglob("*.dcm"))
        path = next(one for one in files if os.getxattr(one, "user.dicomfs.tier") == b"laboratory")
        assert os.getxattr(path, "user.dicomfs.residency") == b"laboratory"
        assert {hashlib.sha256(one.read_bytes()).hexdigest() for one in files} == digests(FILES)
        os.setxattr(path, "user.dicomfs.pin", b"1")
        assert os.listxattr(path) == []
        assert os.getxattr(path, "user.dicomfs.pin") == b"1"
        until(lambda: os.getxattr(path, "user.dicomfs.residency") == b"local")
        assert len(archive.catalog.pinned_series()) == 1
        for name, value in (("user.dicomfs.tier", b"local"), ("user.other", b"1")):
            with pytest.raises(OSError, match="Read-only") as caught:
                os.setxattr(path, name, value)
            assert caught.value.errno == errno.EROFS
        os.removexattr(path, "user.dicomfs.pin")
        assert os.getxattr(path, "user.dicomfs.pin") == b"0"
        (tmp_path / LABORATORY).rename(tmp_path / "unmounted")
        (tmp_path / EXTERNAL).rename(tmp_path / "gone")
        run("ls", "-lR", served.mountpoint)
        (tmp_path / "unmounted").rename(tmp_path / LABORATORY)
        (tmp_path / "gone").rename(tmp_path / EXTERNAL)
