"""Stubs: they read, become whole, come back from backups, and never give zeros."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

import pytest

from dicomfs import marks, system_calls
from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError
from dicomfs.incoming import release
from dicomfs.incoming.stubs import only_zeros
from dicomfs.incoming.tree import Change
from dicomfs.sources import digest_of
from tests import samples
from tests.archives import sha, versions
from tests.clients import Client


@pytest.fixture
def packed(archive: Archive, client: Client, slices: list[bytes]) -> Client:
    """A client whose three files, 0.dcm to 2.dcm, are stubs."""
    for number, data in enumerate(slices):
        client.put(f"{number}.dcm", data)
        os.utime(client.beneath(f"{number}.dcm"), ns=(5, 10**18 + number))
    archive.pack("fast")
    return client


def is_stub(path: Path) -> bool:
    return marks.read_reference(path, path.stat().st_size) is not None


def zeros_or_errno(client: Client, name: str) -> bytes | int | None:
    """What a reader gets: bytes, or an error number."""
    try:
        return client.get(name)
    except OSError as problem:
        return problem.errno


def test_packing_gives_back_every_block_and_changes_nothing_that_shows(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    path = client.beneath("a.dcm")
    os.utime(path, ns=(5, 10**18))
    names, number = client.incoming.names, client.number("a.dcm")
    before = names.attributes(number)
    archive.pack("fast")
    after = names.attributes(number)
    assert is_stub(path)
    assert path.stat().st_blocks == 0
    assert after.stub is not None
    assert (after.stub.mtime_ns, after.stub.ctime_ns) == (
        before.status.st_mtime_ns,
        before.status.st_ctime_ns,
    )
    assert path.stat().st_mtime_ns == 10**18
    assert after.status.st_size == len(slices[0])
    assert client.get("a.dcm") == slices[0]


def test_every_range_of_a_stub_is_the_files(packed: Client, slices: list[bytes]) -> None:
    with packed.opened("1.dcm") as handle:
        size = len(slices[1])
        for offset, length in ((0, 1), (131, 5), (size - 3, 10), (size, 10), (500, size)):
            assert packed.files.read(handle, offset, length) == slices[1][offset : offset + length]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_a_stub_is_whole_before_its_first_write(packed: Client, slices: list[bytes], flags: int) -> None:
    with packed.opened("1.dcm", flags) as handle:
        assert packed.beneath("1.dcm").read_bytes() == slices[1]
        packed.files.write(handle, 10, b"written")
    assert packed.get("1.dcm") == slices[1][:10] + b"written" + slices[1][17:]
    assert not is_stub(packed.beneath("1.dcm"))


def test_a_stub_that_was_made_whole_and_not_written_becomes_one_again(
    archive: Archive, packed: Client, slices: list[bytes]
) -> None:
    with packed.opened("1.dcm", os.O_RDWR):
        assert packed.beneath("1.dcm").stat().st_mtime_ns == 10**18 + 1
        assert not is_stub(packed.beneath("1.dcm"))
    archive.pack("fast")
    assert is_stub(packed.beneath("1.dcm"))
    assert packed.get("1.dcm") == slices[1]


def test_a_stub_emptied_or_cut_is_as_a_file_would_be(packed: Client, slices: list[bytes]) -> None:
    with packed.opened("0.dcm", os.O_WRONLY | os.O_TRUNC):
        pass
    packed.incoming.change(packed.number("1.dcm"), None, 200, Change())
    packed.incoming.change(packed.number("2.dcm"), None, len(slices[2]) + 5, Change())
    assert packed.get("0.dcm") == b""
    assert packed.get("1.dcm") == slices[1][:200]
    assert packed.get("2.dcm") == slices[2] + bytes(5)


def test_a_reader_of_a_stub_sees_what_is_written_after_it_was_opened(
    packed: Client, slices: list[bytes]
) -> None:
    with packed.opened("1.dcm") as reading:
        assert packed.files.read(reading, 0, 4) == slices[1][:4]
        with packed.opened("1.dcm", os.O_WRONLY) as writing:
            packed.files.write(writing, 0, b"new!")
            assert packed.files.read(reading, 0, 4) == b"new!"


def test_a_file_that_is_open_is_not_released_until_it_is_closed(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    with client.opened("a.dcm") as handle:
        archive.pack("fast")
        assert not is_stub(client.beneath("a.dcm"))
        assert client.files.read(handle, 0, 1 << 20) == slices[0]
    archive.pack("fast")
    assert is_stub(client.beneath("a.dcm"))


def test_a_file_written_between_acceptance_and_packing_keeps_its_bytes(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    with client.beneath("a.dcm").open("r+b") as behind_our_back:
        behind_our_back.write(b"x")
    archive.pack("fast")
    assert client.get("a.dcm") == b"x" + slices[0][1:]
    assert marks.read_mark(client.beneath("a.dcm")) is None, "the next mount takes it again"


def test_a_write_during_the_comparison_is_never_lost(
    archive: Archive, client: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put("a.dcm", slices[0])
    compare = digest_of

    def written_meanwhile(descriptor: int) -> bytes:
        digest = compare(descriptor)
        with client.opened("a.dcm", os.O_WRONLY) as handle:
            client.files.write(handle, 0, b"x")
        return digest

    monkeypatch.setattr(release, "digest_of", written_meanwhile)
    archive.pack("fast")
    assert client.get("a.dcm") == b"x" + slices[0][1:]


def test_hard_links_and_renames_of_a_stub_are_the_stub(packed: Client, slices: list[bytes]) -> None:
    names = packed.incoming.names
    names.link(packed.number("1.dcm"), packed.top, b"linked")
    names.rename(packed.top, b"1.dcm", packed.top, b"renamed", 0)
    assert packed.get("linked") == packed.get("renamed") == slices[1]
    with packed.opened("linked", os.O_WRONLY) as handle:
        packed.files.write(handle, 0, b"x")
    assert packed.get("renamed")[:1] == b"x"


def test_times_that_a_client_sets_on_a_stub_are_shown(packed: Client) -> None:
    names, number = packed.incoming.names, packed.number("1.dcm")
    known = names.change(number, Change(mode=0o600))
    assert known.stub is None, "its own times count now"
    assert known.status.st_mtime_ns == 10**18 + 1
    known = names.change(number, Change(modified_ns=77))
    assert known.status.st_mtime_ns == 77
    with packed.opened("1.dcm", os.O_RDWR):
        assert packed.beneath("1.dcm").stat().st_mtime_ns == 77


@pytest.mark.parametrize("forge", ["copied", "altered", "other key", "no key"])
def test_a_reference_that_is_not_this_archives_is_an_error_and_never_other_bytes(
    archive: Archive, packed: Client, forge: str
) -> None:
    source, target = packed.beneath("0.dcm"), packed.beneath("forged")
    size = source.stat().st_size
    target.write_bytes(b"")
    os.truncate(target, size)
    value = bytearray(os.getxattr(source, marks.REFERENCE))
    if forge == "altered":
        value[0] ^= 1  # the position: another instance of the series
    marks.set_reference(target, bytes(value))
    if forge == "other key":
        (archive.paths.stubs / "key").write_bytes(b"another key")
    if forge == "no key":
        (archive.paths.stubs / "key").unlink()
    fresh = Client(archive)
    outcome = zeros_or_errno(fresh, "forged")
    fresh.close()
    assert outcome == (packed.get("0.dcm") if forge == "copied" else errno.EIO)


def test_an_interrupted_punch_is_punched_again(archive: Archive, packed: Client, slices: list[bytes]) -> None:
    path = packed.beneath("1.dcm")
    with path.open("r+b") as file:
        file.write(b"\xaa" * 9000)
    packed.incoming.start()  # the walk of a new mount lists it again
    packed.incoming._watch.stop()
    assert packed.get("1.dcm") == slices[1], "the reference wins"
    archive.pack("fast")
    assert path.stat().st_blocks == 0
    assert packed.get("1.dcm") == slices[1]


def test_rehydrating_on_a_full_disk_fails_and_leaves_a_stub(
    packed: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[:100], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        packed.files.open(packed.number("1.dcm"), os.O_RDWR)
    monkeypatch.undo()
    assert packed.get("1.dcm") == slices[1]
    assert packed.beneath("1.dcm").stat().st_blocks == 0


def test_a_damaged_pack_is_an_error_of_its_stubs(archive: Archive, packed: Client) -> None:
    for pack in (archive.paths.root / "local").rglob("*"):
        if pack.is_file() and "journal" not in pack.parts:
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 0xFF
            data[-30] ^= 0xFF
            pack.write_bytes(data)
    with Archive.open(archive.paths.root) as fresh:
        client = Client(fresh)
        for name in ("0.dcm", "1.dcm"):
            with pytest.raises(DicomfsError):
                client.get(name)
        client.close()


COPIES: dict[str, list[str]] = {
    "rsync -a": ["rsync", "-a"],
    "rsync -aX": ["rsync", "-aX"],
    "rsync -aXS": ["rsync", "-aXS"],
    "rsync -aS": ["rsync", "-aS"],
    "cp -r": ["cp", "-r"],
    "cp -a": ["cp", "-a"],
    "tar": ["tar"],
    "tar --xattrs": ["tar", "--xattrs", "--xattrs-include=*", "-S"],
}


def copy(how: str, source: Path, target: Path) -> None:
    """Copy what is in a folder into another one, which need not be there."""
    words = COPIES[how]
    if words[0] == "tar":
        subprocess.run([*words, "-C", source, "-cf", target.with_suffix(".tar"), "."], check=True)
        target.mkdir(exist_ok=True)
        subprocess.run([*words, "-C", target, "-xf", target.with_suffix(".tar")], check=True)
    else:
        end = "/" if words[0] == "rsync" else "/."
        subprocess.run([*words, f"{source}{end}", target], check=True)


def keeps(how: str) -> bool:
    """Whether a way to copy keeps extended attributes."""
    return "X" in how or how in ("cp -a", "tar --xattrs")


@pytest.mark.parametrize("how", COPIES)
def test_an_archive_folder_restored_from_a_backup_is_exact_or_an_error_never_zeros(
    archive: Archive, packed: Client, slices: list[bytes], tmp_path: Path, how: str
) -> None:
    packed.put("raw.dcm", samples.structured_report())
    packed.close()
    archive.close()
    restored = tmp_path / "restored"
    copy(how, archive.paths.root, restored)
    with Archive.open(restored) as again:
        client = Client(again)
        got = [zeros_or_errno(client, f"{number}.dcm") for number in range(3)]
        assert got == (slices if keeps(how) else [errno.EIO] * 3)
        assert client.get("raw.dcm") == samples.structured_report()
        again.pack("fast")
        assert [zeros_or_errno(client, f"{number}.dcm") for number in range(3)] == got
        client.close()


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("over", ["nothing", "the stub", "the file written", "another file"])
def test_a_stub_restored_beneath_a_live_archive_is_exact_or_an_error_never_zeros(
    archive: Archive, packed: Client, slices: list[bytes], tmp_path: Path, how: str, over: str
) -> None:
    """One file of a folder, put back while the mount serves it; the sentinel is intact."""
    backup = tmp_path / "backup"
    copy(how, archive.paths.incoming, backup)
    for name in ("0.dcm", "1.dcm"):
        (backup / name).unlink()
    if over == "nothing":
        packed.incoming.names.unlink(packed.top, b"2.dcm")
    if over in ("the file written", "another file"):
        with packed.opened("2.dcm", os.O_RDWR | os.O_TRUNC) as handle:
            packed.files.write(handle, 0, slices[2] if over == "the file written" else b"something else")
    copy(how, backup, archive.paths.incoming)
    got = zeros_or_errno(packed, "2.dcm")
    assert got in (slices[2], errno.EIO)
    if over == "nothing":
        assert got == (slices[2] if keeps(how) else errno.EIO)
    with pytest.raises(OSError) if got == errno.EIO else contextlib.nullcontext():
        packed.files.release(packed.files.open(packed.number("2.dcm"), os.O_RDWR))
    packed.settle()
    assert archive.pack("fast").failed == []
    assert versions(archive) == {sha(data): 0 for data in slices}
    assert zeros_or_errno(packed, "2.dcm") == got
    with packed.opened("2.dcm", os.O_WRONLY | os.O_TRUNC) as handle:
        packed.files.write(handle, 0, b"anew")
    assert packed.get("2.dcm") == b"anew"


def test_zeros_that_a_client_wrote_are_zeros_at_any_time(archive: Archive, packed: Client) -> None:
    with packed.opened("written", os.O_WRONLY | os.O_CREAT) as handle:
        packed.files.write(handle, 0, bytes(5000))
    for name in ("grown", "cut"):
        with packed.opened(name, os.O_WRONLY | os.O_CREAT) as handle:
            packed.files.write(handle, 4990, b"data")
        packed.incoming.change(packed.number(name), None, 0 if name == "grown" else 4990, Change())
    with packed.opened("open", os.O_WRONLY | os.O_CREAT) as handle:
        packed.files.truncate(packed.number("open"), handle, 5000)
        assert packed.get("open") == bytes(5000)
    packed.incoming.change(packed.number("grown"), None, 5000, Change())
    packed.incoming.change(packed.number("0.dcm"), None, 100, Change())
    wanted = {"written": 5000, "grown": 5000, "cut": 4990, "open": 5000, "0.dcm": 100}
    for _ in range(2):
        assert {name: packed.get(name) for name in wanted} == {n: bytes(size) for n, size in wanted.items()}
        packed.settle()
        archive.pack("fast")
    packed.die()
    later = Client(archive)
    assert {name: later.get(name) for name in wanted} == {n: bytes(size) for n, size in wanted.items()}
    later.close()


def test_zeros_kept_by_an_import_are_zeros(archive: Archive, packed: Client, tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(300))
    archive.import_paths([tmp_path / "zeros"], keep_others=True)
    assert packed.beneath("imported/zeros").read_bytes() == bytes(300)
    packed.settle()
    imported = packed.number("imported")
    number = packed.incoming.names.lookup(imported, b"zeros").status.st_ino
    handle = packed.files.open(number, os.O_RDONLY)
    assert packed.files.read(handle, 0, 400) == bytes(300)
    packed.files.release(handle)


def test_a_large_hole_is_looked_at_quickly(packed: Client, tmp_path: Path) -> None:
    """Holes are passed over: reading them would take hours."""
    with (tmp_path / "hole").open("w+b") as file:
        file.truncate(1 << 43)
        assert only_zeros(file.fileno())
        os.pwrite(file.fileno(), b"x", 1 << 42)
        assert not only_zeros(file.fileno())


def test_locks_of_the_mount_and_the_packer_exclude_each_other(packed: Client) -> None:
    other = os.open(packed.beneath("1.dcm"), os.O_RDWR)
    with packed.opened("1.dcm"):
        assert not system_calls.lock_exclusive(other)
    assert system_calls.lock_exclusive(other)
    os.close(other)
