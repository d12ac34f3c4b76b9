"""Options of a mount: what ``-o`` accepts, for people and for ``mount(8)`` reading fstab.

Owns parsing and defaults; what the options do is the mount's business.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dicomfs.errors import UsageError

_NO_OPERATION = frozenset(
    (
        *("defaults", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync"),
        *("auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail"),
        *("atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime"),
        *("nolazytime", "diratime", "nodiratime", "iversion", "noiversion", "silent", "loud"),
        *("mand", "nomand", "symfollow", "nosymfollow"),
        "default_permissions",
        "user_xattr",
    )
)
"""Options that fstab and mount(8) hand to every file system and that change nothing here."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a mount is shown."""

    uid: int = field(default_factory=os.getuid)
    """Owner of all files and folders."""
    gid: int = field(default_factory=os.getgid)
    """Group of all files and folders."""
    file_mode: int = 0o440
    """Permission bits of files."""
    folder_mode: int = 0o550
    """Permission bits of folders."""
    allow_other: bool = False
    """Whether users other than the mounting one may enter at all."""
    user_xattr: bool = True
    """Whether ``user.dicomfs.*`` and ``user.dicom.*`` answer.  Without them the kernel never asks, and
    ``ls -l``, which wants two extended attributes of every file, is some eight times as fast."""
    read_only: bool = False
    """Whether the kernel refuses writes by itself; the tree refuses them in any case."""

    @classmethod
    def parse(cls, options: Iterable[str]) -> MountOptions:
        """The options of ``-o`` strings, each a comma separated list; later ones win.

        Raises:
            UsageError: an option is unknown or its value makes no sense; it is named.
        """
        result = cls()
        for option in (part.strip() for text in options for part in text.split(",")):
            if option:
                result = _apply(result, option)
        return result


def _apply(result: MountOptions, option: str) -> MountOptions:
    name, _, value = option.partition("=")
    match name:
        case "uid":
            return replace(result, uid=_number_of(option, value, lambda user: pwd.getpwnam(user).pw_uid))
        case "gid":
            return replace(result, gid=_number_of(option, value, lambda group: grp.getgrnam(group).gr_gid))
        case "file_mode":
            return replace(result, file_mode=_mode(option, value))
        case "folder_mode":
            return replace(result, folder_mode=_mode(option, value))
        case "allow_other" if not value:
            return replace(result, allow_other=True)
        case "nouser_xattr" if not value:
            return replace(result, user_xattr=False)
        case "ro" if not value:
            return replace(result, read_only=True)
        case _ if option in _NO_OPERATION or name.startswith("x-") or name == "comment":
            return result
    raise UsageError(f"unknown mount option: {option}")


def _number_of(option: str, value: str, by_name: Callable[[str], int]) -> int:
    try:
        number = int(value) if value.isascii() and value.isdigit() else by_name(value)
    except KeyError:
        raise UsageError(f"mount option {option}: no such name here") from None
    if number >= 1 << 32:
        raise UsageError(f"mount option {option}: too large")
    return number


def _mode(option: str, value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        raise UsageError(f"mount option {option}: not an octal number") from None
    if not 0 <= mode <= 0o777:
        raise UsageError(f"mount option {option}: only permission bits, 0 to 777")
    return mode
