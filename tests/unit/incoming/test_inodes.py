"""What is remembered of inodes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.incoming.inodes import InodeTable


@pytest.fixture(params=["handles", "descriptors"])
def table(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InodeTable]:
    """A table that remembers file handles, and one where they do not work."""
    if request.param == "descriptors":
        monkeypatch.setattr(InodeTable, "_handles_work", lambda self: False)
    made = InodeTable(tmp_path)
    yield made
    made.close()


def know(table: InodeTable, path: Path) -> int:
    descriptor = os.open(path, os.O_PATH)
    try:
        return table.know(descriptor).status.st_ino
    finally:
        os.close(descriptor)


def test_a_known_inode_is_opened_under_another_name(table: InodeTable, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    number = know(table, tmp_path / "file")
    (tmp_path / "file").rename(tmp_path / "other")
    descriptor = table.open(number, os.O_RDONLY)
    assert os.read(descriptor, 10) == b"bytes"
    os.close(descriptor)


def test_an_inode_is_forgotten_after_as_many_forgets_as_lookups(table: InodeTable, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    number = know(table, tmp_path / "file")
    know(table, tmp_path / "file")
    table.forget([(number, 1)])
    os.close(table.open(number))
    table.forget([(number, 1)])
    with pytest.raises(OSError, match="unknown") as caught:
        table.open(number)
    assert caught.value.errno == errno.ESTALE


def test_another_file_system_beneath_is_refused(table: InodeTable) -> None:
    with pytest.raises(OSError, match="another file system") as caught:
        know(table, Path("/proc/self/status"))
    assert caught.value.errno == errno.EXDEV


def test_a_number_used_again_gets_another_generation(tmp_path: Path) -> None:
    table = InodeTable(tmp_path)
    seen: dict[int, set[int]] = {}
    for _ in range(50):
        (tmp_path / "file").write_bytes(b"")
        descriptor = os.open(tmp_path / "file", os.O_PATH)
        known = table.know(descriptor)
        os.close(descriptor)
        assert known.generation not in seen.get(known.status.st_ino, set())
        seen.setdefault(known.status.st_ino, set()).add(known.generation)
        (tmp_path / "file").unlink()
    assert len(seen) < 50, "no number was used again: the test proves nothing"
    table.close()


def test_many_known_inodes_need_few_descriptors(tmp_path: Path) -> None:
    table = InodeTable(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(300):
        (tmp_path / str(number)).write_bytes(b"")
        know(table, tmp_path / str(number))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    table.close()
