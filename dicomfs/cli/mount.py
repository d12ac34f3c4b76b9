"""``dicomfs mount``: shows an archive as a tree, to read and, under ``incoming``, to write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dicomfs import background, config, mounts
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, State, pass_state
from dicomfs.errors import DicomfsError
from dicomfs.mount import MountOptions, serve
from dicomfs.paths import ArchivePaths, read_identity


@click.command("mount")
@click.argument("mountpoint", type=PathName())
@click.option(
    "-o", "options", multiple=True, metavar="OPTION,…", help="Mount options: uid=, gid=, allow_other, ro, …"
)
@click.option("-f", "--foreground", is_flag=True, help="Serve in this process until it is unmounted.")
@click.option("--ready-fd", type=int, hidden=True)
@pass_state
def command(
    state: State, mountpoint: Path, options: tuple[str, ...], foreground: bool, ready_fd: int | None
) -> int:
    r"""Show the archive as a tree at MOUNTPOINT, a folder.

    Returns when the tree is there.  `dicomfs umount MOUNTPOINT` ends it.  In /etc/fstab:

    \b
        /srv/archive  /mnt/dicom  fuse.dicomfs  allow_other,nofail  0  0
    """
    archive = state.archive_path()
    parsed = MountOptions.parse([*config.load(archive).mount.as_options(), *options])
    mounts.refuse_mounted(mountpoint)
    if foreground or ready_fd is not None:
        _serve(archive, mountpoint.absolute(), parsed, ready_fd)
        return ExitCode.DONE
    paths = ArchivePaths(archive)
    read_identity(paths)
    paths.run.mkdir(mode=0o700, exist_ok=True)
    program = [sys.executable, "-m", "dicomfs", "-a", str(archive), *["-v"] * max(state.verbose, 1)]
    program += ["--log-json"] * state.log_json
    program += ["mount", str(mountpoint.absolute()), *(f"-o{option}" for option in options)]
    failed = background.start(program, paths.run, "mount")
    if failed is None:
        return ExitCode.DONE
    output.complain(failed.text)
    return failed.exit_code if failed.exit_code > 0 else ExitCode.STORAGE


def _serve(archive: Path, mountpoint: Path, options: MountOptions, ready_fd: int | None) -> None:
    """Serve in this process; whoever started it in the background learns how the start went."""
    waiting = ready_fd

    def ready() -> None:
        nonlocal waiting
        if waiting is not None:
            background.tell_ready(waiting)
            waiting = None

    try:
        if ready_fd is not None:
            os.chdir("/")
        paths = ArchivePaths(archive)
        read_identity(paths)
        with mounts.claimed(paths.run, mountpoint):
            serve(archive, mountpoint, options, ready)
    except (DicomfsError, OSError) as error:
        if waiting is not None:
            background.tell_error(waiting, output.problem(error))
        raise
