"""What only a tier of files can do wrong."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from dicomfs.errors import ObjectExists, ObjectNotFound, TierError, TierFull, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.folder import FolderTier

KEY = ObjectKey("pixel/ab/cd")
SHA256 = hashlib.sha256(b"bytes").hexdigest()


@pytest.fixture
def tier(tmp_path: Path) -> FolderTier:
    (tmp_path / "tier").mkdir()
    return FolderTier("local", tmp_path / "tier")


def _temporaries(tier: FolderTier) -> list[Path]:
    return list((tier.path / ".tmp").iterdir())


def test_a_source_on_the_same_file_system_is_linked_not_copied(tier: FolderTier, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    tier.put(KEY, source, SHA256)
    assert (tier.path / KEY).samefile(source)
    assert source.stat().st_mode & 0o777 == 0o400
    assert _temporaries(tier) == []


def test_a_missing_folder_is_an_error_not_an_empty_tier(tmp_path: Path) -> None:
    tier = FolderTier("laboratory", tmp_path / "not mounted")
    calls = (
        lambda: tier.put(KEY, b"bytes", SHA256),
        lambda: tier.stat(KEY),
        lambda: tier.delete(KEY),
        lambda: list(tier.list("")),
        tier.usage,
    )
    for call in calls:
        with pytest.raises(TierError) as caught:
            call()
        assert not isinstance(caught.value, ObjectNotFound)
    assert not tier.path.exists()


@pytest.mark.parametrize(
    "number, expected",
    [
        (errno.ENOSPC, TierFull),
        (errno.EDQUOT, TierFull),
        (errno.ESTALE, TransientTierError),
        (errno.ETIMEDOUT, TransientTierError),
        (errno.EIO, TierError),
        (errno.EROFS, TierError),
    ],
)
def test_errors_of_the_system_are_translated_and_nothing_is_left(
    tier: FolderTier, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[TierError]
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    tier.put(ObjectKey("pixel/ab/other"), b"bytes", SHA256)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(TierError) as caught:
        tier.put(KEY, b"bytes", SHA256)
    assert type(caught.value) is expected
    assert _temporaries(tier) == []
    assert not (tier.path / KEY).exists()


def test_a_file_torn_by_something_else_is_not_taken_for_the_object(tier: FolderTier) -> None:
    target = tier.path / KEY
    target.parent.mkdir(parents=True)
    target.write_bytes(b"byt")
    with pytest.raises(ObjectExists):
        tier.put(KEY, b"bytes", SHA256)


def test_everything_is_synced_before_the_name_appears(
    tier: FolderTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tier.path)}")
        fsync(descriptor)

    def note_link(source: Path, target: Path) -> None:
        steps.append(f"link {Path(target).relative_to(tier.path)}")
        link(source, target)

    monkeypatch.setattr("os.fsync", note_fsync)
    monkeypatch.setattr("os.link", note_link)
    tier.put(KEY, b"bytes", SHA256)
    assert [step.split("/")[0] if ".tmp" in step else step for step in steps] == [
        "fsync .",
        "fsync pixel",
        "fsync .tmp",
        "link pixel/ab/cd",
        "fsync pixel/ab",
    ]


def test_what_was_written_is_read_back_from_the_disk_not_from_memory(
    tier: FolderTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, advise, digest = os.fsync, os.posix_fadvise, hashlib.file_digest

    def note_fsync(descriptor: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").is_dir():
            steps.append("fsync")
        fsync(descriptor)

    def note_advice(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        steps.append("drop")
        advise(descriptor, offset, length, advice)

    def note_digest(file: Any, name: str) -> Any:
        steps.append("read")
        return digest(file, name)

    monkeypatch.setattr("os.fsync", note_fsync)
    monkeypatch.setattr("os.posix_fadvise", note_advice)
    monkeypatch.setattr("hashlib.file_digest", note_digest)
    tier.put(KEY, b"bytes", SHA256)
    tier.put(KEY, b"bytes", SHA256)
    assert steps == ["fsync", "drop", "read"] * 2


def test_only_old_temporary_files_are_discarded(tier: FolderTier) -> None:
    assert tier.discard_temporaries(0) == 0
    tier.put(KEY, b"bytes", SHA256)
    (tier.path / ".tmp" / "left").write_bytes(b"by")
    assert tier.discard_temporaries(3600) == 0
    assert tier.discard_temporaries(0) == 1
    assert tier.get(KEY) == b"bytes"


def test_temporary_files_are_not_listed(tier: FolderTier) -> None:
    tier.put(KEY, b"bytes", SHA256)
    (tier.path / ".tmp" / "left").write_bytes(b"by")
    assert [key for key, _ in tier.list("")] == [KEY]


def test_objects_are_for_their_owner_only(tier: FolderTier) -> None:
    tier.put(KEY, b"bytes", SHA256)
    assert (tier.path / KEY).stat().st_mode & 0o777 == 0o400
    assert (tier.path / "pixel").stat().st_mode & 0o077 == 0
