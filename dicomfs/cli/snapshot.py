"""``dicomfs snapshot``: ships what the index knows to every tier, so that recovery is fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.errors import TierError

if TYPE_CHECKING:
    import threading

    from dicomfs.archive import Archive
    from dicomfs.progress import Progress
    from dicomfs.snapshots import SnapshotReport


@click.command("snapshot")
@as_json
@pass_state
def command(state: State, as_json: bool) -> int:
    """Put a snapshot of what the index knows on the local tier and on every tier that holds objects.

    With other tiers in use, `tier apply` and mounts make one when it is due ([snapshots] in dicomfs.toml).
    """
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        report = archive.snapshots().make(progress, stop)
    if as_json:
        output.emit_json(_document(report))
    else:
        _say(report)
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed or report.left_out else ExitCode.DONE


def if_due(archive: Archive, progress: Progress, stop: threading.Event) -> list[tuple[str, str]]:
    """Make one where the rules are applied, if it is time; what went wrong: (tier, reason)."""
    if not archive.settings.snapshots.background or not archive.tiers.remote or stop.is_set():
        return []
    snapshots = archive.snapshots()
    try:
        return snapshots.make(progress, stop).failed if snapshots.is_due() else []
    except TierError as problem:
        return [("local", f"no snapshot was made: {problem}")]


def _say(report: SnapshotReport) -> None:
    for _, reason in (*report.failed, *report.left_out):
        output.note(reason)
    if report.key is not None:
        output.say(
            f"{report.key}: {report.headers} header packs, {report.journal} journal objects, "
            f"{output.size(report.bytes)}, on {', '.join(report.tiers)}"
        )


def _document(report: SnapshotReport) -> dict[str, object]:
    return {
        "snapshot": report.key,
        "bytes": report.bytes,
        "headers": report.headers,
        "journal": report.journal,
        "tiers": report.tiers,
        "removed": report.removed,
        "left_out": [{"object": key, "reason": reason} for key, reason in report.left_out],
        "failed": [{"tier": tier, "reason": reason} for tier, reason in report.failed],
        "stopped": report.stopped,
    }
