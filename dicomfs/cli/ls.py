"""``dicomfs ls``: lists folders of the tree without mounting it."""

from __future__ import annotations

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state


@click.command("ls")
@click.argument("path", default="/")
@as_json
@pass_state
def command(state: State, path: str, as_json: bool) -> int:
    """List PATH of the mounted tree, such as /patients; does not need a mount."""
    with opened(state) as archive:
        entries = archive.listing(path)
    if as_json:
        output.emit_json(
            [{"name": entry.name, "folder": entry.folder, "size": entry.size} for entry in entries]
        )
        return ExitCode.DONE
    rows = [
        (entry.name + "/" * entry.folder, "" if entry.folder else output.size(entry.size))
        for entry in entries
    ]
    output.table(("name", "size"), rows, right=("size",))
    return ExitCode.DONE
