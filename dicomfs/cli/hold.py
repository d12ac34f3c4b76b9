"""``dicomfs hold``: keeps instances from being forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.model import Subject


@click.command("hold")
@click.argument("selectors", nargs=-1, metavar="[PATH|UID]...")
@click.option("--release", is_flag=True, help="End the holds on exactly these.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@as_json
@pass_state
def command(state: State, selectors: tuple[str, ...], release: bool, reason: str, as_json: bool) -> int:
    """Keep instances, series, studies or patients from being forgotten, what is added to them later too.

    Without any, list the holds.
    """
    if not selectors and release:
        raise UsageError("say what to release: paths of the tree, or UIDs")
    with opened(state) as archive:
        untold: list[tuple[str, str]] = []
        if selectors:
            subjects = tree.subjects_of(archive, selectors)
            decisions = archive.decisions()
            untold = (decisions.release if release else decisions.hold)(subjects, reason)
        holds = [
            {"path": _path(archive, hold.subject), "reason": hold.reason, "since_ns": hold.since_ns}
            for hold in archive.catalog.holds()
        ]
    for tier, problem in untold:
        output.note(f"tier {tier} does not know yet; `dicomfs gc` tells it: {problem}")
    if as_json:
        output.emit_json({"holds": holds, "untold": [{"tier": t, "reason": r} for t, r in untold]})
    elif selectors:
        output.say(f"{'released' if release else 'held'}: {len(subjects)}; {len(holds)} holds in all")
    else:
        output.table(("held", "reason"), [(hold["path"], hold["reason"]) for hold in holds])
    return ExitCode.PART_FAILED if untold else ExitCode.DONE


def _path(archive: Archive, subject: Subject) -> str:
    try:
        return tree.path_of_subject(archive, subject)
    except NotFoundError as problem:
        return str(problem)
