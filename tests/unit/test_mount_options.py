"""Options of a mount, as people and mount(8) write them."""

from __future__ import annotations

import os
import pwd

import pytest

from dicomfs.errors import UsageError
from dicomfs.mount import session_options
from dicomfs.mount_options import MountOptions


def test_without_options_files_belong_to_the_mounting_user_and_are_read_only() -> None:
    assert MountOptions.parse([]) == MountOptions(
        os.getuid(), os.getgid(), 0o440, 0o550, allow_other=False, user_xattr=True, read_only=False
    )


def test_options_are_comma_separated_repeatable_and_the_last_one_wins() -> None:
    options = MountOptions.parse(["uid=5,gid=6,allow_other", "uid=7,,file_mode=444", "folder_mode=0555,ro"])
    assert options == MountOptions(7, 6, 0o444, 0o555, allow_other=True, read_only=True)


def test_users_may_be_named() -> None:
    name = pwd.getpwuid(0).pw_name
    assert MountOptions.parse([f"uid={name}"]).uid == 0


def test_what_fstab_hands_to_every_file_system_is_accepted() -> None:
    usual = (
        "defaults,rw,nosuid,nodev,noexec,dev,suid,auto,noauto,user,_netdev,nofail,x-systemd.automount,noatime,"
        "dirsync,mand,nosymfollow"
    )
    assert MountOptions.parse([usual]) == MountOptions.parse([])


@pytest.mark.parametrize(
    "option",
    [
        "quota",
        "allow_root",
        "uid=",
        "uid=no-such-user-here",
        "gid=4294967296",
        "file_mode=999",
        "file_mode=7777",
        "folder_mode=x",
        "rw=1",
        "ro=1",
        "allow_other=no",
    ],
)
def test_an_option_that_makes_no_sense_is_named(option: str) -> None:
    with pytest.raises(UsageError, match=option.replace(".", r"\.")):
        MountOptions.parse([option])


def test_commas_and_backslashes_of_the_archive_path_reach_libfuse_escaped() -> None:
    assert r"fsname=/a\,b\\c%C3%A9" in session_options("/a,b\\cé", MountOptions())


def test_the_kernel_always_checks_permissions() -> None:
    options = session_options("/a", MountOptions(allow_other=True, read_only=True))
    assert {"default_permissions", "allow_other", "ro", "subtype=dicomfs"} <= options
