"""What the commands of ``dicomfs tier`` share: choosing objects, and telling what was moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import costs, output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive import Archive
    from dicomfs.index.records import ObjectRecord
    from dicomfs.prices import Cost
    from dicomfs.tiering import TieringReport

selectors = click.argument("selectors", nargs=-1, metavar="[PATH|UID]...")
everything = click.option("--all", "everything", is_flag=True, help="All that the archive holds.")

dry_run = click.option("--dry-run", is_flag=True, help="Tell what it would take and cost; move nothing.")


def chosen(
    archive: Archive,
    selectors: tuple[str, ...],
    everything: bool,
    objects: Callable[[set[int] | None], list[ObjectRecord]],
) -> list[ObjectRecord]:
    """The objects that are meant.  Raises UsageError, NotFoundError."""
    if everything == bool(selectors):
        raise UsageError("say what to move: paths of the tree, UIDs, or --all")
    return objects(None if everything else tree.series_of(archive, selectors))


def document(report: TieringReport) -> dict[str, object]:
    """A report as JSON has it."""
    return {
        "objects": report.objects,
        "bytes": report.bytes,
        "already": report.already,
        "journal": report.journal,
        "kept": [{"object": key, "reason": reason} for key, reason in report.kept],
        "failed": [{"object": key, "reason": reason} for key, reason in report.failed],
        "restoring": [record.key for record in report.cold],
        "stopped": report.stopped,
    }


def tell(report: TieringReport, what: str, waiting: int, as_json: bool, cost: Cost | None = None) -> ExitCode:
    """Tell what one run moved; returns how the command ends.  ``cost`` is that of all that was due."""
    if as_json:
        priced = {} if cost is None else {"cost": costs.document(cost)}
        output.emit_json(document(report) | {"waiting": waiting} | priced)
    else:
        for _, reason in (*report.failed, *report.kept):
            output.note(reason)
        there = f", {report.already} were there before" if report.already else ""
        output.say(f"{what}: {report.objects} objects, {output.size(report.bytes)}{there}")
        if cost is not None and (told := costs.text(cost)):
            output.say(told)
        if report.cold:
            cold = sum(record.size for record in report.cold)
            output.note(f"{len(report.cold)} objects ({output.size(cold)}) are cold, to be restored first")
        if waiting:
            output.note(f"{waiting} instances wait to be packed: they are on the local disk only")
    if report.stopped:
        return ExitCode.INTERRUPTED
    if report.failed or report.kept:
        return ExitCode.PART_FAILED
    return ExitCode.BUSY if report.cold else ExitCode.DONE
