"""The list of files that wait to become stubs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.incoming.waiting import WaitingList


def test_each_file_is_offered_once_and_stays_until_it_is_taken(tmp_path: Path) -> None:
    waiting = WaitingList(tmp_path, tmp_path)
    for handle in (b"one", b"two", b"one", b"three"):
        waiting.add(handle)
    offered: list[bytes] = []

    def take(handle: bytes) -> bool:
        offered.append(handle)
        return handle != b"two"

    assert waiting.work_off(take) == 2
    assert offered == [b"one", b"two", b"three"]
    offered.clear()
    assert waiting.work_off(take) == 0
    assert offered == [b"two"]


def test_what_is_added_meanwhile_is_kept(tmp_path: Path) -> None:
    waiting = WaitingList(tmp_path, tmp_path)
    waiting.add(b"one")

    def take(handle: bytes) -> bool:
        waiting.add(b"late")
        return True

    assert waiting.work_off(take) == 1
    assert waiting.work_off(lambda handle: handle == b"late") == 1


def test_a_run_that_dies_leaves_the_list(tmp_path: Path) -> None:
    waiting = WaitingList(tmp_path, tmp_path)
    waiting.add(b"one")

    def die(handle: bytes) -> bool:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        waiting.work_off(die)
    assert waiting.work_off(lambda handle: True) == 1


def test_a_line_that_a_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    waiting = WaitingList(tmp_path, tmp_path)
    waiting.add(b"one")
    with (tmp_path / "waiting").open("ab") as file:
        file.write(b"abc\n\xff\xfe\n")
    waiting.add(b"two")
    assert waiting.work_off(lambda handle: True) == 2


def test_without_a_list_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert WaitingList(tmp_path, tmp_path).work_off(lambda handle: False) == 0


def test_the_list_of_a_copied_archive_is_void(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    (tmp_path / "copy").mkdir()
    WaitingList(tmp_path, tmp_path / "original").add(b"one")
    copy = WaitingList(tmp_path, tmp_path / "copy")
    assert copy.work_off(lambda handle: True) == 0
    copy.add(b"two")
    assert copy.work_off(lambda handle: handle == b"two") == 1
