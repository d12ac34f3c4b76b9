"""The mounted tree as programs see it: names, attributes, bytes, refusals."""

# ruff: noqa: PTH208 - the tests are about the system calls
from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from dicomfs.model import InstanceId
from tests.fuse.conftest import Serve, run
from tests.mount_fakes import FOLDER, MTIME_NS, SIZE, content

pytestmark = pytest.mark.real_mount


def refused(call: object, *arguments: object) -> int:
    assert callable(call)
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        call(*arguments)
    assert caught.value.errno is not None
    return caught.value.errno


def test_the_kernel_lists_the_type_and_the_archive(serve: Serve) -> None:
    served = serve(3)
    line = next(
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(served.mountpoint) in line
    )
    assert line.split(" - ")[1].startswith("fuse.dicomfs /srv/archive,\\040one ")
    assert "default_permissions" in line


def test_every_byte_size_and_time_is_exact(serve: Serve) -> None:
    folder = serve(3).mountpoint / "patients" / FOLDER
    for position, name in enumerate(sorted(os.listdir(folder))):
        expected = content(InstanceId(9, position))
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(expected).digest()
        status = (folder / name).stat()
        assert (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (SIZE, MTIME_NS, MTIME_NS)
        assert status.st_blocks == -(-SIZE // 512)
        assert stat.S_IMODE(status.st_mode) == 0o440
        with (folder / name).open("rb") as file:
            for offset, length in ((0, 1), (SIZE - 1, 10), (131071, 2), (SIZE, 5), (200_001, 99_999)):
                assert os.pread(file.fileno(), length, offset) == expected[offset : offset + length]


def test_folders_have_one_link_and_no_write_permission(serve: Serve) -> None:
    status = (serve(3).mountpoint / "patients" / FOLDER).stat()
    assert (status.st_nlink, stat.S_IMODE(status.st_mode), stat.S_ISDIR(status.st_mode)) == (1, 0o550, True)


def test_owner_group_and_modes_follow_the_options(serve: Serve) -> None:
    served = serve(1, "uid=4711,gid=4712", "file_mode=0444,folder_mode=0555")
    status = (served.mountpoint / "patients" / FOLDER / "000001.dcm").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4711, 4712, 0o444)
    assert stat.S_IMODE(served.mountpoint.stat().st_mode) == 0o555


@pytest.mark.parametrize(
    "options, uid, readable",
    [
        ("", 65534, False),
        ("allow_other", 65534, False),
        ("allow_other,uid=65534", 65534, True),
        ("allow_other,file_mode=444,folder_mode=555", 65534, True),
    ],
)
def test_who_may_read_follows_allow_other_owner_and_modes(
    serve: Serve, options: str, uid: int, readable: bool
) -> None:
    # The folder is entered before the rights are dropped: what lies above it is the test's own.
    mountpoint = serve(1, options).mountpoint
    command = ["cat", f"patients/{FOLDER}/000001.dcm"]
    done = subprocess.run(
        command, cwd=mountpoint, user=uid, group=uid, extra_groups=[], capture_output=True, check=False
    )
    assert (done.returncode == 0) == readable
    assert done.stdout == (content(InstanceId(9, 0)) if readable else b"")


def test_find_sees_every_file_of_a_large_folder_once(serve: Serve) -> None:
    mountpoint = serve(2500).mountpoint
    found = run("find", mountpoint, "-type", "f", "-name", "*.dcm").splitlines()
    assert len(found) == len(set(found)) == 2500
    assert run("find", mountpoint, "-type", "f", "-size", f"{SIZE}c").count("\n") == 2500


def test_gnu_tar_with_sparse_files_archives_the_bytes(serve: Serve, tmp_path: Path) -> None:
    mountpoint = serve(3).mountpoint
    run("tar", "-cSf", tmp_path / "all.tar", "-C", mountpoint, "patients")
    with tarfile.open(tmp_path / "all.tar") as archive:
        files = {member.name: member for member in archive if member.isfile()}
        assert len(files) == 3
        member = archive.extractfile(f"patients/{FOLDER}/000002.dcm")
        assert member is not None
        assert member.read() == content(InstanceId(9, 1))


def test_cp_copies_bytes_and_times_and_no_virtual_attributes(serve: Serve, tmp_path: Path) -> None:
    mountpoint = serve(3).mountpoint
    run("cp", "-a", mountpoint / "patients", tmp_path / "copy")
    copy = tmp_path / "copy" / FOLDER / "000003.dcm"
    assert copy.read_bytes() == content(InstanceId(9, 2))
    assert copy.stat().st_mtime_ns == MTIME_NS
    assert os.listxattr(copy) == []


@pytest.mark.parametrize("options", [("-aX",), ("-aSX",), ("-aX", "--inplace", "--no-whole-file")])
def test_rsync_copies_exactly_and_finds_nothing_to_do_again(
    serve: Serve, tmp_path: Path, options: tuple[str, ...]
) -> None:
    mountpoint = serve(3).mountpoint
    source, target = f"{mountpoint}/patients/", tmp_path / "copy"
    run("rsync", *options, source, target)
    for position in range(3):
        copy = target / FOLDER / f"00000{position + 1}.dcm"
        assert copy.read_bytes() == content(InstanceId(9, position))
    assert run("rsync", *options, "--itemize-changes", source, target) == ""
    assert run("rsync", *options, "--itemize-changes", "--checksum", source, target) == ""


def test_extended_attributes_answer_by_name_and_are_not_listed(serve: Serve) -> None:
    file = serve(1).mountpoint / "patients" / FOLDER / "000001.dcm"
    digest = hashlib.sha256(content(InstanceId(9, 0))).hexdigest()
    assert os.listxattr(file) == []
    assert os.getxattr(file, "user.dicomfs.sha256") == digest.encode()
    assert os.getxattr(file, "user.dicomfs.tier") == b"local"
    assert os.getxattr(file, "user.dicomfs.residency") == b"packed"
    assert os.getxattr(file, "user.dicomfs.codec") == b"ffv1"
    assert os.getxattr(file, "user.dicomfs.ratio") == b"3.0"
    assert json.loads(os.getxattr(file, "user.dicomfs.all"))["sha256"] == digest
    assert os.getxattr(file, "user.dicom.PatientName") == b"Doe^Jane"
    for name in ("user.dicomfs.none", "user.dicom.NoSuchKeyword", "user.other", "security.capability"):
        assert refused(os.getxattr, file, name) == errno.ENODATA
    assert refused(os.getxattr, file.parent, "user.dicomfs.tier") == errno.ENODATA


def test_extended_attributes_can_be_switched_off(serve: Serve) -> None:
    file = serve(1, "nouser_xattr").mountpoint / "patients" / FOLDER / "000001.dcm"
    assert refused(os.getxattr, file, "user.dicomfs.tier") == errno.EOPNOTSUPP
    assert refused(os.getxattr, file, "security.capability") == errno.EOPNOTSUPP
    assert refused(os.listxattr, file) == errno.EOPNOTSUPP
    assert file.read_bytes() == content(InstanceId(9, 0))


@pytest.mark.parametrize("option", ["rw", "ro"])
def test_every_write_is_refused_as_read_only(serve: Serve, option: str) -> None:
    folder = serve(2, option).mountpoint / "patients" / FOLDER
    file = folder / "000001.dcm"
    writes = [
        (os.open, file, os.O_WRONLY),
        (os.open, file, os.O_RDWR),
        (os.open, folder / "new.dcm", os.O_CREAT | os.O_WRONLY),
        (os.truncate, file, 0),
        (os.unlink, file),
        (os.rename, file, folder / "other.dcm"),
        (os.link, file, folder / "link.dcm"),
        (os.symlink, "target", folder / "symbolic"),
        (os.mkdir, folder / "new"),
        (os.rmdir, folder),
        (os.mkfifo, folder / "pipe"),
        (os.chmod, file, 0o600),
        (os.chown, file, 1, 1),
        (os.utime, file, (0, 0)),
        (os.setxattr, file, "user.dicomfs.pin", b"1"),
        (os.setxattr, file, "user.new", b"1", os.XATTR_CREATE),
        (os.removexattr, file, "user.dicomfs.pin"),
    ]
    for call, *arguments in writes:
        assert refused(call, *arguments) == errno.EROFS, (call, arguments)
    assert file.read_bytes() == content(InstanceId(9, 0))


def test_what_does_not_exist_is_not_there(serve: Serve) -> None:
    mountpoint = serve(1).mountpoint
    missing = ["none", "patients/none", f"patients/{FOLDER}/000009.dcm", ".dicomfs/none", "versions/none"]
    for path in [*missing, os.fsdecode(b"patients/\xff\xfe"), f"patients/{'x' * 200}"]:
        assert refused(os.stat, mountpoint / path) == errno.ENOENT
    assert refused(os.listdir, mountpoint / "patients" / FOLDER / "000001.dcm") == errno.ENOTDIR
    assert refused(os.readlink, mountpoint / "patients") == errno.EINVAL


def test_the_status_file_is_json_without_attributes_of_patients(serve: Serve) -> None:
    status = serve(3).mountpoint / ".dicomfs" / "status"
    assert json.loads(status.read_text()) == {"instances": 3}
    assert status.stat().st_size == len(status.read_bytes())


def test_the_space_shown_is_that_of_the_local_tier(serve: Serve) -> None:
    space = os.statvfs(serve(3).mountpoint)
    assert (space.f_frsize * space.f_blocks, space.f_frsize * space.f_bavail) == (1 << 40, 1 << 39)
    assert (space.f_files, space.f_namemax) == (3, 255)


def test_a_folder_being_read_keeps_its_positions_and_a_new_look_shows_what_came(serve: Serve) -> None:
    served = serve(400)
    folder = served.mountpoint / "patients" / FOLDER
    with os.scandir(folder) as entries:
        seen = [next(entries).name for _ in range(10)]
        served.tell("add", "000000.dcm")
        seen += [entry.name for entry in entries]
    assert seen == sorted(set(seen))
    assert len(seen) == 400
    assert len(os.listdir(folder)) == 401
