"""A network folder that is not mounted, or is somebody else's, is never taken for the tier."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomfs.errors import ObjectNotFound, TierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.sentinel import SENTINEL, attach_folder, read_sentinel

ARCHIVE, OTHER = bytes(range(16)), bytes(16)
KEY = ObjectKey("pixel/ab/cd")
SHA256 = hashlib.sha256(b"bytes").hexdigest()


def _tier(folder: Path) -> FolderTier:
    return FolderTier("laboratory", folder, local=False, archive_id=ARCHIVE)


def _calls(tier: FolderTier) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: tier.put(KEY, b"bytes", SHA256),
        "get": lambda: tier.get(KEY),
        "get_range": lambda: tier.get_range(KEY, ByteRange(0, 1)),
        "stat": lambda: tier.stat(KEY),
        "restore": lambda: tier.restore(KEY),
        "delete": lambda: tier.delete(KEY),
        "list": lambda: list(tier.list("")),
        "usage": tier.usage,
        "open_local": lambda: tier.open_local(KEY),
        "discard_temporaries": lambda: tier.discard_temporaries(0),
    }


OPERATIONS = sorted(_calls(FolderTier("laboratory", Path("/"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    attach_folder("laboratory", tmp_path / "nas", ARCHIVE)
    return tmp_path / "nas"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, mounted where a folder was that stays empty."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        attach_folder("laboratory", folder, ARCHIVE)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def test_a_folder_is_attached_once_and_again(folder: Path) -> None:
    assert json.loads((folder / SENTINEL).read_text()) == {
        "format": "dicomfs tier",
        "version": 1,
        "archive": ARCHIVE.hex(),
    }
    attach_folder("laboratory", folder, ARCHIVE)
    assert read_sentinel("laboratory", folder) == ARCHIVE
    assert (folder / SENTINEL).stat().st_mode & 0o777 == 0o600


def test_a_folder_of_another_archive_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="another archive"):
        attach_folder("laboratory", folder, OTHER)
    assert read_sentinel("laboratory", folder) == ARCHIVE


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(UsageError, match="not empty"):
        attach_folder("laboratory", tmp_path, ARCHIVE)
    assert not (tmp_path / SENTINEL).exists()


def test_a_folder_whose_parent_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        attach_folder("laboratory", tmp_path / "not" / "there", ARCHIVE)


def test_an_attachment_that_died_is_finished(tmp_path: Path) -> None:
    (tmp_path / f"{SENTINEL}.part").write_text("{")
    attach_folder("laboratory", tmp_path, ARCHIVE)
    assert read_sentinel("laboratory", tmp_path) == ARCHIVE


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_its_sentinel_nothing_works_and_nothing_is_written(tmp_path: Path, operation: str) -> None:
    tier = _tier(tmp_path)
    with pytest.raises(TierError, match="is the network folder mounted") as caught:
        _calls(tier)[operation]()
    assert not isinstance(caught.value, ObjectNotFound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_mount
@pytest.mark.parametrize("operation", OPERATIONS)
def test_unmounted_under_us_it_is_an_error_and_the_folder_beneath_stays_empty(
    mounted: Path, operation: str
) -> None:
    tier = _tier(mounted)
    tier.put(KEY, b"bytes", SHA256)
    subprocess.run(["umount", mounted], check=True)
    with pytest.raises(TierError, match="is the network folder mounted") as caught:
        _calls(tier)[operation]()
    assert not isinstance(caught.value, ObjectNotFound)
    assert list(mounted.iterdir()) == []


@pytest.mark.real_mount
def test_unmounted_in_the_middle_of_a_put_nothing_gets_into_the_folder_beneath(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier, fsync = _tier(mounted), os.fsync

    def unmount(descriptor: int) -> None:
        subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", unmount)
    tier.put(KEY, b"bytes", SHA256)
    assert list(mounted.iterdir()) == []
    with pytest.raises(TierError, match="is the network folder mounted"):
        tier.stat(KEY)


def test_the_tier_of_another_archive_in_its_place_is_noticed(folder: Path) -> None:
    tier = _tier(folder)
    tier.put(KEY, b"bytes", SHA256)
    shutil.rmtree(folder)
    attach_folder("laboratory", folder, OTHER)
    with pytest.raises(TierError, match="another archive"):
        tier.get(KEY)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"format": "other", "version": 1, "archive": ""}', "damaged"),
        ('{"format": "dicomfs tier", "version": 1}', "damaged"),
        ('{"format": "dicomfs tier", "version": 1, "archive": "xy"}', "damaged"),
        ('{"format": "dicomfs tier", "version": 2, "archive": "00"}', "upgrade dicomfs"),
    ],
)
def test_a_sentinel_that_cannot_be_understood_is_an_error(folder: Path, text: str, problem: str) -> None:
    (folder / SENTINEL).write_text(text)
    with pytest.raises(TierError, match=problem):
        _tier(folder).stat(KEY)
    with pytest.raises(TierError, match=problem):
        attach_folder("laboratory", folder, ARCHIVE)


def test_the_sentinel_is_no_object(folder: Path) -> None:
    tier = _tier(folder)
    assert list(tier.list("")) == []
    tier.put(KEY, b"bytes", SHA256)
    assert [key for key, _ in tier.list("")] == [KEY]
    assert tier.open_local(KEY) == folder / KEY


def test_no_descriptor_is_left_open(folder: Path) -> None:
    tier = _tier(folder)
    before = _descriptors()
    for _ in range(3):
        tier.put(KEY, b"bytes", SHA256)
        next(tier.list(""))
        with pytest.raises(ObjectNotFound):
            tier.get(ObjectKey("absent"))
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
