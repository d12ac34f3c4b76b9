"""``dicomfs recover``: makes a whole archive again from one tier."""

from __future__ import annotations

import dataclasses

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, pass_state
from dicomfs.recover import recover


@click.command("recover")
@click.option("--from", "url", required=True, metavar="URL", help="The tier to read: file:///path.")
@as_json
@pass_state
def command(state: State, url: str, as_json: bool) -> int:
    """Rebuild the archive named by -a, a new or empty folder or one without its index, from one tier."""
    with output.progress() as progress:
        report = recover(state.archive_path(), url, progress)
    facts = dataclasses.asdict(report)
    if as_json:
        output.emit_json(facts)
    else:
        output.table(("", ""), [(name.replace("_", " "), value) for name, value in facts.items()])
    return ExitCode.PART_FAILED if facts.get("problems") else ExitCode.DONE
