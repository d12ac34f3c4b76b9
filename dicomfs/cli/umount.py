"""``dicomfs umount``: ends a mount, in order or by force."""

from __future__ import annotations

from pathlib import Path

import click

from dicomfs import mounts
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName


@click.command("umount")
@click.argument("mountpoint", type=PathName())
@click.option("--force", is_flag=True, help="Cut off what still uses it.")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait."
)
def command(mountpoint: Path, force: bool, patience: float) -> int:
    """Unmount MOUNTPOINT and wait until its process has ended.

    A process that does not end is cut off after the patience.  Touches mounts of dicomfs only.
    """
    done = mounts.unmount(mountpoint, patience=patience, force=force)
    if done:
        output.note(done)
    return ExitCode.DONE
