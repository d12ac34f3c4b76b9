"""``dicomfs import``: takes files into the archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, State, as_json, opened, pass_state

if TYPE_CHECKING:
    from dicomfs.importer import ImportReport


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=PathName())
@click.option("--keep-others", is_flag=True, help="Keep files that are no DICOM instances, too.")
@as_json
@pass_state
def command(state: State, paths: tuple[Path, ...], keep_others: bool, as_json: bool) -> int:
    """Take every DICOM instance at and below PATHS; sources stay as they are.

    What is reported taken survives a power cut.  Taking the same file again changes nothing.  Exit code 1
    when files were not taken; they are listed with the reason.
    """
    with opened(state) as archive, output.progress() as progress:
        report = archive.import_paths(paths, keep_others=keep_others, progress=progress)
    if as_json:
        output.emit_json(_document(report))
    else:
        for item in report.not_taken:
            output.note(f"not taken: {item}")
        conflicts = f", {report.conflicts} in conflict" if report.conflicts else ""
        output.say(
            f"taken {report.taken} ({output.size(report.bytes_taken)}), already there {report.already}"
            f"{conflicts}, kept as other files {report.kept}, not taken {len(report.not_taken)}"
        )
    return ExitCode.PART_FAILED if report.not_taken else ExitCode.DONE


def _document(report: ImportReport) -> dict[str, object]:
    return {
        "taken": report.taken,
        "already": report.already,
        "conflicts": report.conflicts,
        "bytes": report.bytes_taken,
        "kept": report.kept,
        "not_taken": [
            {"path": item.path, "reason": item.reason, "advice": item.advice} for item in report.not_taken
        ],
    }
