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
        report = archive.verify(deep=deep, progress=progress)
    if as_json:
        output.emit_json(dataclasses.asdict(report))
    else:
        for text in report.notes:
            output.note(f"note: {text}")
        for name, reason in report.unreachable.items():
            output.note(f"tier {name} could not be asked: {reason}")
        for problem in report.problems:
            output.say(problem)
        output.say(
            f"checked {report.objects} objects and {report.instances} instances,"
            f" read {output.size(report.bytes_read)}: {len(report.problems) or 'no'} problems"
            + (f", {report.unchecked} could not be checked" if report.unchecked else "")
        )
    if report.problems:
        return ExitCode.PART_FAILED
    return ExitCode.STORAGE if report.unreachable else ExitCode.DONE
