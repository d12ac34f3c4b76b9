"""``dicomfs forget``: takes instances out of the archive for ever."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from dicomfs.forgetting import ForgetReport


@click.command("forget")
@click.argument("selectors", nargs=-1, required=True, metavar="PATH|UID...")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@pass_state
def command(state: State, selectors: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> int:
    """Take instances, series, studies or patients out of the archive for ever.

    They are gone from the tree at once, and the journal on every tier says so before this returns, so that
    `recover` never brings them back.  With a file go all versions of it.  Objects that only they needed are
    deleted from every tier; what lies in objects that others need stays there, out of reach, and is told.
    """
    with opened(state) as archive:
        decisions = archive.decisions()
        rows = decisions.instances_of(tree.subjects_of(archive, selectors))
        if not yes:
            _ask(len(rows), sum(row.size for row in rows))
        report = decisions.forget([row.id for row in rows], reason)
    if as_json:
        output.emit_json(_document(report))
    else:
        _say(report)
    return ExitCode.PART_FAILED if report.unshipped or report.left else ExitCode.DONE


def _ask(instances: int, size: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{instances} instances would be forgotten for ever: say --yes")
    click.confirm(f"Forget {instances} instances, {output.size(size)}, for ever?", abort=True, err=True)


def _say(report: ForgetReport) -> None:
    for tier, reason in report.unshipped:
        output.note(f"tier {tier} does not know yet; `dicomfs gc` tells it: {reason}")
    for _, reason in report.left:
        output.note(f"not deleted yet; `dicomfs gc` does it: {reason}")
    output.say(
        f"forgot {report.instances} instances, {output.size(report.bytes)};"
        f" {report.destroyed} objects destroyed"
    )
    if report.shared:
        output.say(
            f"some of their bytes stay, out of reach, in {len(report.shared)} objects that others need,"
            f" {output.size(report.shared_bytes)}: until the next `dicomfs gc` packs these again"
        )


def _document(report: ForgetReport) -> dict[str, object]:
    return {
        "instances": report.instances,
        "bytes": report.bytes,
        "destroyed": report.destroyed,
        "shared": sorted(report.shared),
        "shared_bytes": report.shared_bytes,
        "unshipped": [{"tier": tier, "reason": reason} for tier, reason in report.unshipped],
        "left": [{"object": key, "reason": reason} for key, reason in report.left],
    }
