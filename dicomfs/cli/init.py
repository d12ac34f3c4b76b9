"""``dicomfs init``: makes an archive."""

from __future__ import annotations

import click

from dicomfs.archive import Archive
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, pass_state


@click.command("init")
@pass_state
def command(state: State) -> int:
    """Make an empty archive in the folder named by -a, which must be new or empty."""
    path = state.archive_path()
    with Archive.create(path):
        output.note(f"archive made in {path}")
    return ExitCode.DONE
