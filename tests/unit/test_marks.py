"""Marks and references on inodes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicomfs import marks
from dicomfs.marks import Reference, Sealer, State
from dicomfs.model import InstanceId

INSTANCE = InstanceId((1 << 35) + 7, (1 << 23) - 1)
REFERENCE = Reference(INSTANCE, 5, -1, 1_700_000_000_123_456_789)
DIGEST = bytes(range(32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    return path


def test_a_mark_is_read_as_it_was_set_until_it_is_removed(file: Path) -> None:
    assert marks.read_mark(file) is None
    marks.set_mark(file, INSTANCE)
    assert marks.read_mark(file) == (State.ACCEPTED, INSTANCE)
    marks.set_mark(file, INSTANCE, provisional=True)
    assert marks.read_mark(file) == (State.PROVISIONAL, INSTANCE)
    assert marks.accepted_as(file) == INSTANCE
    marks.set_written(file)
    assert marks.read_mark(file) == (State.WRITTEN, None)
    marks.remove_mark(file)
    marks.remove_mark(file)
    assert marks.read_mark(file) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP])
def test_where_writing_cannot_be_noted_no_other_mark_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    marks.set_mark(file, INSTANCE)

    def full(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "setxattr", full)
    marks.set_written(file)
    assert marks.read_mark(file) is None


def test_a_reference_is_read_with_all_it_says(file: Path) -> None:
    value = Sealer(b"key").value(REFERENCE, DIGEST)
    assert len(value) <= 56, "longer values leave the inode on ext4"
    marks.set_reference(file, value)
    assert marks.read_reference(file, 5) == (value, REFERENCE)
    marks.remove_reference(file)
    assert marks.read_reference(file, 5) is None


def test_a_reference_for_another_size_is_void(file: Path) -> None:
    marks.set_reference(file, Sealer(b"key").value(REFERENCE, DIGEST))
    assert marks.read_reference(file, 4) is None


@pytest.mark.parametrize("value", [b"", b"short", bytes(48), b"\xff" * 48, b"\x10" * 49])
def test_what_is_no_reference_is_none(file: Path, value: bytes) -> None:
    os.setxattr(file, marks.REFERENCE, value)
    assert marks.read_reference(file, 5) is None


@pytest.mark.parametrize("value", [b"", b"12345678", b"123456789"])
def test_what_is_no_mark_is_none(file: Path, value: bytes) -> None:
    os.setxattr(file, marks.MARK, value)
    assert marks.read_mark(file) is None


def test_only_the_key_makes_a_genuine_reference_and_only_for_these_bytes() -> None:
    value = Sealer(b"key").value(REFERENCE, DIGEST)
    assert Sealer(b"key").is_genuine(value, REFERENCE, DIGEST)
    assert not Sealer(b"other").is_genuine(value, REFERENCE, DIGEST)
    assert not Sealer(b"key").is_genuine(value, REFERENCE, DIGEST[::-1])
    assert not Sealer(b"key").is_genuine(value, marks.touched(REFERENCE), DIGEST)
