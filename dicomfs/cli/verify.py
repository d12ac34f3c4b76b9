"""``dicomfs verify``: checks the archive against itself."""

from __future__ import annotations

import dataclasses

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state


@click.command("verify")
@click.option("--deep", is_flag=True, help="Read and decode everything, compare every file's SHA-256.")
@as_json
@pass_state
def command(state: State, deep: bool, as_json: bool) -> int:
    """Check catalog, objects and bytes against each other; exit code 1 and a list when anything is wrong."""
    with opened(state) as archive, output.progress() as progress:
        report = archive.verify(deep, progress)
    facts = dataclasses.asdict(report)
    if as_json:
        output.emit_json(facts)
    else:
        for problem in report.problems:
            output.say(problem)
        counts = ", ".join(
            f"{value} {name.replace('_', ' ')}" for name, value in facts.items() if name != "problems"
        )
        output.say(f"checked {counts}; problems: {len(report.problems)}")
    return ExitCode.PART_FAILED if report.problems else ExitCode.DONE
