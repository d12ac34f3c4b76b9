"""``dicomfs recover``: makes a whole archive again from one tier."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, State, as_json, pass_state
from dicomfs.recovery import recover


@click.command("recover")
@click.option(
    "--from",
    "url",
    required=True,
    metavar="URL",
    help="The tier to read: file:///path or s3://bucket/prefix.",
)
@click.option("--key-file", type=PathName(), metavar="FILE", help="What the tier is encrypted with.")
@click.option("--from-packs", is_flag=True, help="Read every header pack, though there is a snapshot.")
@as_json
@pass_state
def command(state: State, url: str, key_file: Path | None, from_packs: bool, as_json: bool) -> int:
    """Rebuild the archive named by -a, a new or empty folder or one without its index, from one tier.

    It starts from the newest good snapshot on the tier, and reads the header packs that came after.

    A tier that is not the folder of an archive stays where it is and is attached, read-only until
    `dicomfs tier claim`.
    """
    with output.progress() as progress:
        report = recover(state.archive_path(), url, key_file, progress, from_packs=from_packs)
    if as_json:
        output.emit_json(dataclasses.asdict(report))
    else:
        for problem in (*report.remarks, *report.problems, *report.notes):
            output.note(problem)
        if report.snapshot:
            output.say(f"{report.from_snapshot} header packs were known from {report.snapshot}")
        output.say(
            f"recovered {report.instances} instances of {report.series} series from {report.objects} objects,"
            f" {report.spooled} waiting to be packed: {len(report.problems) or 'no'} problems"
        )
    return ExitCode.PART_FAILED if report.problems else ExitCode.DONE
