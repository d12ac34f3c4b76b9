"""``dicomfs gc``: deletes what nobody needs any more, after a time of grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.purging import PurgeReport

if TYPE_CHECKING:
    from dicomfs.collecting import GcReport


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Tell what would be done; change nothing.")
@click.option(
    "--accept-losses",
    is_flag=True,
    help="Go on though something is unknown: give up what cannot be read or was missing at recovery.",
)
@as_json
@pass_state
def command(state: State, dry_run: bool, accept_losses: bool, as_json: bool) -> int:
    """Delete from all tiers what nobody needs any more.

    What is found for the first time is condemned only; it is deleted by a later run, when its time of grace
    is over and still nobody needs it.
    """
    with opened(state) as archive, asked_by_signals() as stop:
        report = archive.collector().collect(dry_run=dry_run, accept_losses=accept_losses, stop=stop)
        tainted = len(archive.catalog.tainted())
        purged = PurgeReport() if dry_run or stop.is_set() else archive.purger().purge(stop)
    if as_json:
        output.emit_json(_document(report, dry_run=dry_run) | _purged(purged, tainted))
    else:
        _say(report, dry_run=dry_run)
        for _, reason in purged.left:
            output.note(reason)
        if tainted and dry_run:
            output.say(f"{tainted} objects hold something of what was forgotten, and would be packed again")
        elif tainted:
            output.say(
                f"{purged.parts} parts packed again without what was forgotten, "
                f"{purged.destroyed} objects destroyed"
            )
    if report.stopped or purged.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed or report.doubts or purged.left else ExitCode.DONE


def _purged(report: PurgeReport, tainted: int) -> dict[str, object]:
    return {
        "tainted": tainted,
        "packed_again": report.parts,
        "destroyed": report.destroyed,
        "left": [{"object": key, "reason": reason} for key, reason in report.left],
    }


def _say(report: GcReport, *, dry_run: bool) -> None:
    for name, reason in report.failed:
        output.note(reason if name in reason else f"{name}: {reason}")
    for doubt in report.doubts:
        output.note(f"nothing new is condemned: {doubt}")
    would = "would be " if dry_run else ""
    output.say(
        f"{report.deleted} copies {would}deleted, {output.size(report.deleted_bytes)};"
        f" {report.condemned} {would}condemned;"
        f" {report.waiting} wait for the end of their grace, {output.size(report.waiting_bytes)}"
    )


def _document(report: GcReport, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "deleted": report.deleted,
        "deleted_bytes": report.deleted_bytes,
        "condemned": report.condemned,
        "waiting": report.waiting,
        "waiting_bytes": report.waiting_bytes,
        "journal": report.journal,
        "snapshots": report.snapshots,
        "temporaries": report.temporaries,
        "doubts": report.doubts,
        "failed": [{"what": name, "reason": reason} for name, reason in report.failed],
        "stopped": report.stopped,
    }
