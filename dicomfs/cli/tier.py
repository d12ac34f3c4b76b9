"""``dicomfs tier``: what lies on which tier, and moving it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive import Archive
    from dicomfs.index.records import ObjectRecord
    from dicomfs.tiering import TieringReport

_selectors = click.argument("selectors", nargs=-1, metavar="[PATH|UID]...")
_everything = click.option("--all", "everything", is_flag=True, help="All that the archive holds.")


@click.group("tier")
def command() -> None:
    """Tell what lies on which tier, and move it."""


@command.command("status")
@as_json
@pass_state
def status(state: State, as_json: bool) -> int:
    """Tell how much lies on each tier, as the index knows it."""
    with opened(state) as archive:
        found = archive.tiering().status()
    if as_json:
        output.emit_json(found)
    else:
        rows = [(name, one["objects"], output.size(one["bytes"])) for name, one in found.items()]
        output.table(("tier", "objects", "size"), rows, right=("objects", "size"))
    return ExitCode.DONE


@command.command("copy")
@click.option("--to", "name", required=True, metavar="TIER", help="Where to.")
@_everything
@_selectors
@as_json
@pass_state
def copy(state: State, name: str, everything: bool, selectors: tuple[str, ...], as_json: bool) -> int:
    """Put copies of packed objects on a tier, each read back and compared, and ship the journal there."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        chosen = _chosen(archive, selectors, everything, tiering.objects)
        report = tiering.copy(name, chosen, progress, stop)
        waiting = archive.catalog.counts().spool_instances
    return _tell(report, f"copied to {name}", waiting, as_json)


@command.command("evict")
@click.option("--from", "name", required=True, metavar="TIER", help="Where from.")
@_everything
@_selectors
@as_json
@pass_state
def evict(state: State, name: str, everything: bool, selectors: tuple[str, ...], as_json: bool) -> int:
    """Remove copies from a tier, each only where another tier is asked and still has one."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        chosen = _chosen(archive, selectors, everything, tiering.objects)
        report = tiering.evict(name, chosen, progress, stop)
    return _tell(report, f"evicted from {name}", 0, as_json)


@command.command("warm")
@_everything
@_selectors
@as_json
@pass_state
def warm(state: State, everything: bool, selectors: tuple[str, ...], as_json: bool) -> int:
    """Bring objects to the local tier; returns when they are there."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        report = tiering.warm(_chosen(archive, selectors, everything, tiering.objects), progress, stop)
    return _tell(report, "brought to local", 0, as_json)


@command.command("claim")
@click.argument("name", metavar="TIER")
@pass_state
def claim(state: State, name: str) -> int:
    """Take a tier into use that was added to the settings, or over from another folder of this archive.

    That one writes there no more.
    """
    with opened(state) as archive:
        epoch = archive.claim(name)
    output.say(f"tier {name} is in the hands of this archive, epoch {epoch}")
    return ExitCode.DONE


def _chosen(
    archive: Archive,
    selectors: tuple[str, ...],
    everything: bool,
    objects: Callable[[set[int] | None], list[ObjectRecord]],
) -> list[ObjectRecord]:
    if everything == bool(selectors):
        raise UsageError("say what to move: paths of the tree, UIDs, or --all")
    return objects(None if everything else tree.series_of(archive, selectors))


def _tell(report: TieringReport, what: str, waiting: int, as_json: bool) -> int:
    if as_json:
        output.emit_json(
            {
                "objects": report.objects,
                "bytes": report.bytes,
                "already": report.already,
                "journal": report.journal,
                "waiting": waiting,
                "kept": [{"object": key, "reason": reason} for key, reason in report.kept],
                "failed": [{"object": key, "reason": reason} for key, reason in report.failed],
                "stopped": report.stopped,
            }
        )
    else:
        for _, reason in (*report.failed, *report.kept):
            output.note(reason)
        there = f", {report.already} were there before" if report.already else ""
        output.say(f"{what}: {report.objects} objects, {output.size(report.bytes)}{there}")
        if waiting:
            output.note(f"{waiting} instances wait to be packed: they are on the local disk only")
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed or report.kept else ExitCode.DONE
