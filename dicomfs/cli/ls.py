"""``dicomfs ls``: lists folders of the tree without mounting it."""

from __future__ import annotations

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state


@click.command("ls")
@click.argument("path", default="/")
@as_json
@pass_state
def command(state: State, path: str, as_json: bool) -> int:
    """List PATH of the tree, such as /patients; does not need a mount."""
    with opened(state) as archive:
        shown = tree.tree_of(archive)
        found = tree.at(shown, path)
        if found.is_folder:
            entries = [
                (entry.name.decode(), entry.attributes) for entry in shown.listing(found.inode).entries
            ]
        else:
            entries = [(path.rstrip("/").rpartition("/")[2], found)]
    if as_json:
        output.emit_json(
            [
                {"name": name, "folder": facts.is_folder, "size": facts.size, "mtime_ns": facts.mtime_ns}
                for name, facts in entries
            ]
        )
        return ExitCode.DONE
    rows = [
        (name + "/" * facts.is_folder, "" if facts.is_folder else output.size(facts.size))
        for name, facts in entries
    ]
    output.table(("name", "size"), rows, right=("size",))
    return ExitCode.DONE
