"""``dicomfs ls``: lists folders of the tree without mounting it, and versions that are not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.model import InstanceRow


@click.command("ls")
@click.argument("path", default="/")
@click.option(
    "--versions", is_flag=True, help="List what yielded to other files of the same UID, below PATH."
)
@as_json
@pass_state
def command(state: State, path: str, versions: bool, as_json: bool) -> int:
    """List PATH of the tree, such as /patients; does not need a mount."""
    with opened(state) as archive:
        if versions:
            return _list_versions(archive, path, as_json)
        shown = tree.tree_of(archive)
        found = tree.at(shown, path)
        if found.is_folder:
            entries = [
                (entry.name.decode(), entry.attributes) for entry in shown.listing(found.inode).entries
            ]
        else:
            entries = [(path.rstrip("/").rpartition("/")[2], found)]
    if as_json:
        output.emit_json(
            [
                {"name": name, "folder": facts.is_folder, "size": facts.size, "mtime_ns": facts.mtime_ns}
                for name, facts in entries
            ]
        )
        return ExitCode.DONE
    rows = [
        (name + "/" * facts.is_folder, "" if facts.is_folder else output.size(facts.size))
        for name, facts in entries
    ]
    output.table(("name", "size"), rows, right=("size",))
    return ExitCode.DONE


def _list_versions(archive: Archive, path: str, as_json: bool) -> int:
    """Every version that is not shown, why, and where it and the one that is shown lie."""
    wanted = None if path == "/" else tree.series_at(archive, path)
    found: list[tuple[InstanceRow, str, str]] = []
    for series in archive.catalog.versioned_series():
        if wanted is not None and series not in wanted:
            continue
        for row in archive.catalog.rows(series):
            if row.version:
                # What it yielded to may be of another series, or patient: attributes differ.
                same = tree.instances_of(archive, row.sop_instance_uid)
                found.append((row, tree.path_of(archive, row.id), tree.path_of(archive, same[0])))
    if as_json:
        output.emit_json(
            [
                {
                    "path": place,
                    "version": row.version,
                    "conflict": row.conflict.name.lower(),
                    "sop_instance_uid": row.sop_instance_uid,
                    "size": row.size,
                    "mtime_ns": row.mtime_ns,
                    "shown": shown_at,
                }
                for row, place, shown_at in found
            ]
        )
        return ExitCode.DONE
    lines = [(place, row.conflict.name.lower(), output.size(row.size)) for row, place, _ in found]
    output.table(("version", "conflict", "size"), lines, right=("size",))
    return ExitCode.DONE
