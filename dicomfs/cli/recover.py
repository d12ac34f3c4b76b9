"""``dicomfs recover``: makes a whole archive again from one tier."""

from __future__ import annotations

import dataclasses

import click

from dicomfs.archive import recover
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, pass_state


@click.command("recover")
@click.option("--from", "url", required=True, metavar="URL", help="The tier to read: file:///path.")
@as_json
@pass_state
def command(state: State, url: str, as_json: bool) -> int:
    """Rebuild the archive named by -a, a new or empty folder or one without its index, from one tier."""
    with output.progress() as progress:
        report = recover(state.archive_path(), url, progress)
    if as_json:
        output.emit_json(dataclasses.asdict(report))
    else:
        for problem in report.problems:
            output.note(problem)
        output.say(
            f"recovered {report.instances} instances of {report.series} series from {report.objects} objects,"
            f" {report.spooled} waiting to be packed: {len(report.problems) or 'no'} problems"
        )
    return ExitCode.PART_FAILED if report.problems else ExitCode.DONE
