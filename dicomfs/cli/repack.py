"""``dicomfs repack``: moves what is packed to another profile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.config import PROFILES
from dicomfs.low_priority import LOW_PRIORITY

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.packing.repack import Outcome
    from dicomfs.repacker import RepackReport


@click.command("repack")
@click.option("--profile", required=True, type=click.Choice(PROFILES), help="What to move to.")
@click.argument("selectors", nargs=-1, metavar="[PATH|UID]...")
@as_json
@pass_state
def command(state: State, profile: str, selectors: tuple[str, ...], as_json: bool) -> int:
    """Move what is packed to another profile, where it gains: all of it, or what lies at PATHS of the tree.

    Runs at low priority, beside mounts and imports.  Every file is read from the new packs and
    compared before these take the place of the old ones.  Ctrl-C or SIGTERM stops it; the same command
    goes on.
    """
    os.nice(LOW_PRIORITY)
    outcomes: list[dict[str, object]] = []
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:

        def tell(outcome: Outcome) -> None:
            if as_json:
                outcomes.append(_document(archive, outcome))
            else:
                _say(archive, outcome)

        chosen = tree.series_of(archive, selectors) if selectors else None
        report = archive.repack(profile, chosen, progress=progress, tell=tell, stop=stop)
    if as_json:
        output.emit_json({**_totals(report), "packs": outcomes})
    else:
        for name, reason in report.failed:
            output.note(f"not moved: {name}: {reason}")
        output.say(
            f"moved {report.moved} packs: {output.size(report.bytes_before)} became"
            f" {output.size(report.bytes_after)} ({output.share(report.bytes_after, report.bytes_before)});"
            f" kept {report.kept}"
        )
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed else ExitCode.DONE


def _say(archive: Archive, outcome: Outcome) -> None:
    """What became of a pack, why, and what lies in it."""
    sizes = output.size(outcome.before)
    if outcome.moved:
        share = output.share(outcome.after, outcome.before)
        sizes = f"{sizes} became {output.size(outcome.after)} ({share})"
    output.say(f"{'moved' if outcome.moved else 'kept'}: {sizes}: {outcome.reason}")
    for series in outcome.series:
        output.say(f"  {tree.path_of_series(archive, series)}")


def _document(archive: Archive, outcome: Outcome) -> dict[str, object]:
    return {
        "object": outcome.key,
        "series": [tree.path_of_series(archive, series) for series in outcome.series],
        "profile_before": outcome.profile or None,
        "moved": outcome.moved,
        "reason": outcome.reason,
        "bytes_before": outcome.before,
        "bytes_after": outcome.after,
    }


def _totals(report: RepackReport) -> dict[str, object]:
    return {
        "moved": report.moved,
        "kept": report.kept,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "failed": [{"what": name, "reason": reason} for name, reason in report.failed],
        "stopped": report.stopped,
    }
