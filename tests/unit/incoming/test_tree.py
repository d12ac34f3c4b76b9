"""Names and attributes, carried out beneath."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs import marks
from dicomfs.incoming.inodes import InodeTable
from dicomfs.incoming.tree import Caller, Change, Names
from dicomfs.model import InstanceId

SOMEBODY = Caller(1234, 2345, 0o027)


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    table = InodeTable(tmp_path)
    yield Names(table, lambda path: None, lambda path: None)
    table.close()


@pytest.fixture
def top(tmp_path: Path) -> int:
    return tmp_path.stat().st_ino


def test_what_is_made_belongs_to_its_caller_and_obeys_the_mask(
    names: Names, top: int, tmp_path: Path
) -> None:
    names.make_folder(top, b"folder", stat.S_IFDIR | 0o777, SOMEBODY)
    names.make_node(top, b"fifo", stat.S_IFIFO | 0o666, 0, SOMEBODY)
    names.make_symlink(top, b"link", b"nowhere", SOMEBODY)
    shown = {path.name: path.lstat() for path in tmp_path.iterdir()}
    assert {(status.st_uid, status.st_gid) for status in shown.values()} == {(1234, 2345)}
    assert stat.S_IMODE(shown["folder"].st_mode) == 0o750
    assert stat.S_IMODE(shown["fifo"].st_mode) == 0o640


def test_a_folder_with_the_set_group_id_bit_passes_its_group_on(
    names: Names, top: int, tmp_path: Path
) -> None:
    shared = names.make_folder(top, b"shared", stat.S_IFDIR | 0o770, SOMEBODY).status.st_ino
    names.change(shared, Change(gid=77, mode=stat.S_IFDIR | 0o2770))
    names.make_folder(shared, b"below", stat.S_IFDIR | 0o770, SOMEBODY)
    names.make_node(shared, b"file", stat.S_IFREG | 0o660, 0, SOMEBODY)
    folder, file = (tmp_path / "shared" / "below").stat(), (tmp_path / "shared" / "file").stat()
    assert (folder.st_gid, file.st_gid) == (77, 77)
    assert folder.st_mode & stat.S_ISGID
    assert not file.st_mode & stat.S_ISGID


def test_what_cannot_be_given_to_its_caller_is_not_left_behind(
    names: Names, top: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr("dicomfs.system_calls.set_owner", refuse)
    with pytest.raises(OSError, match="quota"):
        names.make_folder(top, b"a", stat.S_IFDIR | 0o777, SOMEBODY)
    with pytest.raises(OSError, match="quota"):
        names.make_node(top, b"b", stat.S_IFREG | 0o666, 0, SOMEBODY)
    with pytest.raises(OSError, match="quota"):
        names.make_symlink(top, b"c", b"nowhere", SOMEBODY)
    assert list(tmp_path.iterdir()) == []


def test_our_own_attributes_are_neither_seen_nor_set_nor_removed(
    names: Names, top: int, tmp_path: Path
) -> None:
    number = names.make_node(top, b"file", stat.S_IFREG | 0o666, 0, SOMEBODY).status.st_ino
    marks.set_mark(tmp_path / "file", InstanceId(1, 2))
    names.set_attribute(number, "user.theirs", b"value")
    assert names.list_attributes(number) == [b"user.theirs"]
    assert names.get_attribute(number, "user.theirs") == b"value"
    for expected, call, arguments in (
        (errno.ENODATA, names.get_attribute, (number, marks.MARK)),
        (errno.EPERM, names.set_attribute, (number, marks.REFERENCE, b"forged")),
        (errno.ENODATA, names.remove_attribute, (number, marks.MARK)),
        (errno.EOPNOTSUPP, names.set_attribute, (number, "system.posix_acl_access", b"")),
    ):
        with pytest.raises(OSError) as caught:
            call(*arguments)
        assert caught.value.errno == expected
    assert marks.accepted_as(tmp_path / "file") == InstanceId(1, 2)


def test_attributes_of_a_symbolic_link_are_its_own(names: Names, top: int, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    number = names.make_symlink(top, b"link", b"target", SOMEBODY).status.st_ino
    names.change(number, Change(uid=9, modified_ns=123))
    assert ((tmp_path / "link").lstat().st_uid, (tmp_path / "link").lstat().st_mtime_ns) == (9, 123)
    assert (tmp_path / "target").stat().st_uid == os.getuid()
    assert names.read_link(number) == b"target"
    linked = names.link(number, top, b"again")
    assert linked.status.st_nlink == 2


def test_a_name_that_goes_away_between_listing_and_describing_is_passed_over(
    names: Names, top: int, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
    listed = sorted(names.names_in(top))
    (tmp_path / "a").unlink()
    found = names.entries(top, listed)
    assert [known is None for known in found] == [True, False]


def test_names_need_not_be_text(names: Names, top: int) -> None:
    names.make_folder(top, b"\xff\xfe", stat.S_IFDIR | 0o777, SOMEBODY)
    assert names.names_in(top) == [b"\xff\xfe"]
    names.rename(top, b"\xff\xfe", top, b"\xfd", 0)
    names.remove_folder(top, b"\xfd")
    assert names.names_in(top) == []
