"""Which dicomfs mounts there are, which processes serve them, and how to end one.

Reads the kernel's mount table; owns the claim files ``run/mount-<pid>.lock`` by which a serving process says
which mount point it serves.  Never touches a mount of another filesystem, and never asks the mounted tree
itself anything: a dead or hanging daemon must not hang whoever wants to get rid of it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from dicomfs.errors import MountBusy, MountError, UsageError
from dicomfs.locks import try_lock

FILESYSTEM_TYPE = "fuse.dicomfs"
MOUNT_TABLE = Path("/proc/self/mountinfo")
CONNECTIONS = Path("/sys/fs/fuse/connections")
"""The kernel's FUSE control filesystem: writing to ``<minor>/abort`` fails everything that waits."""

_OCTAL = re.compile(rb"\\([0-7]{3})")
_MOST_LINKS = 40
"""Symbolic links followed for one mount point, as in the kernel."""
_BARE_IN_SOURCE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%") + " "
NOT_WRITABLE = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT))
"""Why a small file cannot be written on a disk that can be read."""
_COMMAND_SECONDS = 30.0
_AFTER_ABORT_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the kernel's mount table."""

    mountpoint: str
    filesystem_type: str
    source: str
    """For dicomfs: the archive's folder."""
    minor: int
    """Minor device number: the name of a FUSE mount's folder under `CONNECTIONS`."""


def source_name(archive: Path) -> str:
    """Return how an archive's folder is written as the source of a mount: ASCII, other bytes as ``%XX``."""
    return quote(os.fsencode(archive), safe=_BARE_IN_SOURCE)


def _unescaped(field: bytes) -> bytes:
    """Return a field of the mount table with its octal escapes resolved (proc_pid_mountinfo(5))."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def mount_table(table: Path = MOUNT_TABLE) -> list[Mount]:
    """Return what is mounted, in order: later lines cover earlier ones at the same mount point."""
    mounts = []
    # Names may hold any other byte, also those at which text is split into lines.
    for line in table.read_bytes().split(b"\n"):
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(b" "), right.split(b" ")
        if len(fields) >= 6 and len(kind) >= 2:
            filesystem_type, source = os.fsdecode(kind[0]), _unescaped(kind[1])
            if filesystem_type == FILESYSTEM_TYPE:
                source = unquote_to_bytes(source)
            minor = int(fields[2].partition(b":")[2])
            mountpoint = os.fsdecode(_unescaped(fields[4]))
            mounts.append(Mount(mountpoint, filesystem_type, os.fsdecode(source), minor))
    return mounts


def resolved(mountpoint: Path) -> str:
    """Return the absolute name without symbolic links, without asking the mount point itself."""
    name = Path(os.path.abspath(mountpoint))  # noqa: PTH100  resolve() would ask the mount point
    for _ in range(_MOST_LINKS):
        name = name.parent.resolve() / name.name
        try:
            # The kernel answers this for a mount point by itself: it is no link.
            target = name.readlink()
        except OSError:
            break
        name = Path(os.path.abspath(name.parent / target))  # noqa: PTH100
    return str(name)


def find(mountpoint: Path, table: Path = MOUNT_TABLE) -> Mount:
    """Return the dicomfs mount at `mountpoint`.

    Raises UsageError when nothing or another filesystem is mounted there.
    """
    name = resolved(mountpoint)
    found = [mount for mount in mount_table(table) if mount.mountpoint == name]
    if not found:
        raise UsageError(f"{name}: nothing is mounted there")
    if found[-1].filesystem_type != FILESYSTEM_TYPE:
        raise UsageError(f"{name}: is a mount of {found[-1].filesystem_type}, not of dicomfs")
    return found[-1]


def refuse_mounted(mountpoint: Path, table: Path = MOUNT_TABLE) -> None:
    """Raise UsageError when a dicomfs is mounted there already: a second one would hide it."""
    name = resolved(mountpoint)
    found = [mount for mount in mount_table(table) if mount.mountpoint == name]
    if found and found[-1].filesystem_type == FILESYSTEM_TYPE:
        raise UsageError(f"{name}: {found[-1].source} is mounted there already")


@contextlib.contextmanager
def claimed(run: Path, mountpoint: Path) -> Iterator[None]:
    """Say, for as long as this process serves it, that it serves `mountpoint`; `run` is the archive's.

    It is said in `runtime_folder` where the archive's disk is full or read-only.  Where that takes nothing
    either, `unmount` cannot wait for the end of the process.
    """
    with contextlib.ExitStack() as held:
        for folder in (run, runtime_folder()):
            try:
                path, descriptor = _claim(folder, mountpoint)
            except OSError as problem:
                if folder == run and problem.errno not in NOT_WRITABLE:
                    raise
                _log.warning("%s: cannot tell that a mount is served: %s", folder, problem.strerror)
                continue
            held.callback(os.close, descriptor)
            held.callback(path.unlink, missing_ok=True)
            break
        yield


def runtime_folder() -> Path:
    """Return the folder in memory for what concerns this user's running processes: it may not be there."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / "dicomfs"


def _claim(run: Path, mountpoint: Path) -> tuple[Path, int]:
    run.mkdir(mode=0o700, exist_ok=True)
    _sweep(run)
    path = run / f"mount-{os.getpid()}.lock"
    descriptor = try_lock(path)
    if descriptor is None:
        raise MountBusy(str(mountpoint), f"{path.name} is held by another process")
    try:
        os.write(descriptor, os.fsencode(resolved(mountpoint)))
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return path, descriptor


def claim_of(run: Path, mountpoint: str) -> Path | None:
    """Return the claim file of the process that serves `mountpoint`, None when none lives.

    `run` is that of the archive; the machine's folder is looked through as well.
    """
    for folder in (run, runtime_folder()):
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("mount-*.lock")):
                if path.read_bytes() == os.fsencode(mountpoint) and not ended(path):
                    return path
    return None


def ended(claim: Path | None) -> bool:
    """Return whether the process that made the claim is gone: then its lock can be taken."""
    if claim is None or not claim.exists():
        return True
    descriptor = try_lock(claim)
    if descriptor is None:
        return False
    claim.unlink(missing_ok=True)
    os.close(descriptor)
    return True


def _sweep(run: Path, keep_logs: int = 10) -> None:
    """Remove the claims of dead processes and all but the newest logs."""
    for path in run.glob("mount-*.lock"):
        ended(path)
    logs = sorted(run.glob("mount-*.log"), key=lambda path: path.stat().st_mtime_ns)
    for path in logs[:-keep_logs]:
        path.unlink(missing_ok=True)


def unmount(mountpoint: Path, *, patience: float = 60.0, force: bool = False) -> str:
    """Unmount and wait until the serving process has ended.

    A process that has not ended after `patience` seconds, or at once with `force`, is cut off: its
    connection is aborted, whatever waits for it fails, the mount is detached, and what still lives is killed.

    Returns:
        Empty when all ended in order, else what had to be done.

    Raises:
        UsageError: no dicomfs is mounted there.
        MountBusy: programs use the mount.
        MountError: it can't be unmounted.
    """
    mount = find(mountpoint)
    claim = claim_of(Path(mount.source) / "run", mount.mountpoint)
    if not force:
        problem = _fusermount(mount.mountpoint)
        if problem and not ended(claim) and _mounted(mount):
            if "busy" in problem.lower():
                raise MountBusy(mount.mountpoint, "is in use; end the programs that use it, or give --force")
            raise MountError(mount.mountpoint, problem)
        if not problem and _wait(lambda: ended(claim) and not _mounted(mount), patience):
            return ""
    return _cut_off(mount, claim)


def _cut_off(mount: Mount, claim: Path | None) -> str:
    """Abort the connection, detach the mount, and at last kill its process; return what was done."""
    done = []
    abort = CONNECTIONS / str(mount.minor) / "abort"
    if not ended(claim) and _mounted(mount):
        try:
            abort.write_text("1")
            done.append("aborted the connection")
        except OSError as error:
            _log.warning("cannot abort the connection", extra={"minor": mount.minor, "error": error.strerror})
    if _mounted(mount):
        _fusermount(mount.mountpoint, "-z")
        done.append("detached the mount")
    if not _wait(lambda: not _mounted(mount), _AFTER_ABORT_SECONDS):
        raise MountError(mount.mountpoint, "can't be detached")
    if not _wait(lambda: ended(claim), _AFTER_ABORT_SECONDS):
        done.append(_kill(mount, claim))
    return ", ".join(done)


def _kill(mount: Mount, claim: Path | None) -> str:
    """Kill the process that holds the claim; the lock proves that its number is no other process's."""
    assert claim is not None
    try:
        os.kill(int(claim.stem.partition("-")[2]), signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise MountError(
            mount.mountpoint, f"is detached, but its process lives on: {error.strerror}"
        ) from error
    if not _wait(lambda: ended(claim), _AFTER_ABORT_SECONDS):
        raise MountError(mount.mountpoint, f"is detached, but its process lives on (see {claim})")
    return "killed its process"


def _mounted(mount: Mount) -> bool:
    """Return whether this very mount is still there."""
    return mount in mount_table()


def _fusermount(mountpoint: str, *options: str) -> str:
    """Run ``fusermount3 -u``; return its complaint, empty when it did it."""
    command = ["fusermount3", "-u", *options, "--", mountpoint]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        raise MountError(mountpoint, "fusermount3 is missing: install the package fuse3") from None
    except subprocess.TimeoutExpired:
        return "fusermount3 did not return"
    return "" if result.returncode == 0 else result.stderr.strip() or "fusermount3 failed"


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether `condition` came true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
