"""The system calls, on the file system that the tests run on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs import system_calls

NOREPLACE, EXCHANGE = 1, 2


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def opened(path: Path, data: bytes = b"") -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDWR)


def test_a_handle_opens_its_inode_under_any_name_until_the_inode_is_gone(tmp_path: Path, folder: int) -> None:
    descriptor = opened(tmp_path / "one", b"bytes")
    handle = system_calls.handle_of(descriptor)
    os.close(descriptor)
    (tmp_path / "one").rename(tmp_path / "two")
    again = system_calls.open_handle(folder, handle, os.O_RDONLY)
    assert os.read(again, 10) == b"bytes"
    os.close(again)
    (tmp_path / "two").unlink()
    with pytest.raises(OSError, match="Stale") as caught:
        system_calls.open_handle(folder, handle, os.O_RDONLY)
    assert caught.value.errno == errno.ESTALE


def test_a_rename_can_refuse_to_replace_and_can_exchange(tmp_path: Path, folder: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        system_calls.rename(folder, b"a", folder, b"b", NOREPLACE)
    system_calls.rename(folder, b"a", folder, b"b", EXCHANGE)
    assert (tmp_path / "a").read_bytes() == b"b"


def test_times_are_set_to_the_nanosecond_one_by_one(tmp_path: Path) -> None:
    descriptor = opened(tmp_path / "file")
    system_calls.set_times(descriptor, 1_000_000_000_123_456_789, 2_000_000_000_987_654_321)
    system_calls.set_times(descriptor, None, -5_000_000_001)
    status = os.fstat(descriptor)
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_000_123_456_789, -5_000_000_001)
    os.close(descriptor)


@pytest.mark.parametrize("size", [1, 4096, 100_001])
def test_a_punched_file_keeps_its_length_and_no_block(tmp_path: Path, size: int) -> None:
    descriptor = opened(tmp_path / "file", b"x" * size)
    os.fsync(descriptor)
    system_calls.punch(descriptor, size)
    status = os.fstat(descriptor)
    assert (status.st_size, status.st_blocks) == (size, 0)
    assert os.pread(descriptor, 10, 0) == bytes(min(size, 10))
    os.close(descriptor)


def test_an_exclusive_lock_waits_for_nobody_and_yields_to_any_other_open_file(tmp_path: Path) -> None:
    one = opened(tmp_path / "file")
    other = os.open(tmp_path / "file", os.O_RDWR)
    system_calls.lock_shared(one)
    assert not system_calls.lock_exclusive(other)
    with system_calls.locked_apart(other):
        system_calls.lock_shared(other)
    os.close(one)
    assert system_calls.lock_exclusive(other)
    os.close(other)


def test_a_clone_is_whole_or_is_not_made(tmp_path: Path) -> None:
    source, target = opened(tmp_path / "source", b"bytes"), opened(tmp_path / "target")
    made = system_calls.clone(source, target)
    assert os.pread(target, 10, 0) == (b"bytes" if made else b"")
    os.close(source)
    os.close(target)
