"""``dicomfs pack``: compresses what waits in the spool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.config import PROFILES
from dicomfs.low_priority import yield_to_others

if TYPE_CHECKING:
    from dicomfs.packer import PackReport


@click.command("pack")
@click.option("--profile", type=click.Choice(PROFILES), help="How dense; default: the settings'.")
@click.option("--quiet-only", is_flag=True, help="Leave series alone that still receive instances.")
@click.option("--background-of", type=int, hidden=True)
@as_json
@pass_state
def command(
    state: State, profile: str | None, quiet_only: bool, background_of: int | None, as_json: bool
) -> int:
    """Pack all that waits, now; returns when it is sealed, compared and committed.

    Ctrl-C or SIGTERM stops it within seconds: what is committed stays, the rest waits for the next run.
    """
    if background_of is not None:
        yield_to_others(background_of)
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        only = archive.quiet_series() if quiet_only else None
        report = archive.pack(profile, progress, stop, only=only)
    if as_json:
        output.emit_json(_document(report))
    else:
        for name, reason in report.failed:
            output.note(f"not packed, kept as it is: {name}: {reason}")
        output.say(
            f"packed {report.instances} instances of {report.series} series:"
            f" {output.size(report.raw_bytes)} became {output.size(report.stored_bytes)}"
            f" ({output.share(report.stored_bytes, report.raw_bytes)})"
        )
        if report.together:
            output.note(f"{report.together} small parts packed again together")
        for codec, frames in report.codecs.most_common():
            output.note(f"{frames} frames by {codec}")
        for reason, count in report.whole.most_common():
            output.note(f"{count} files stored without splitting: {reason}")
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed else ExitCode.DONE


def _document(report: PackReport) -> dict[str, object]:
    return {
        "instances": report.instances,
        "series": report.series,
        "raw_bytes": report.raw_bytes,
        "stored_bytes": report.stored_bytes,
        "parts_together": report.together,
        "frames_by_codec": dict(report.codecs),
        "whole": [{"reason": reason, "instances": count} for reason, count in report.whole.most_common()],
        "failed": [{"what": name, "reason": reason} for name, reason in report.failed],
        "stopped": report.stopped,
    }
