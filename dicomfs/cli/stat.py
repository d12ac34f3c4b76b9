"""``dicomfs stat``: all that is known of one thing."""

from __future__ import annotations

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state


@click.command("stat")
@click.argument("name", metavar="PATH|UID")
@as_json
@pass_state
def command(state: State, name: str, as_json: bool) -> int:
    """Tell all that is known of a patient, study, series or instance, named by path or by UID."""
    with opened(state) as archive:
        facts = archive.stat(name)
    if as_json:
        output.emit_json(facts)
    else:
        output.table(("", ""), list(facts.items()))
    return ExitCode.DONE
