"""``dicomfs stat``: all that is known of one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.residency import NOT_READABLE
from dicomfs.vfs import instance_of

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.model import InstanceId


@click.command("stat")
@click.argument("name", metavar="PATH|UID")
@as_json
@pass_state
def command(state: State, name: str, as_json: bool) -> int:
    """Tell how the file at a PATH of the tree, or with a SOP Instance UID, is stored.

    A UID may have several files: the one shown comes first, then the kept versions.
    """
    with opened(state) as archive:
        facts = _by_path(archive, name) if "/" in name else _by_uid(archive, name)
    if as_json:
        output.emit_json(facts)
    else:
        for document in facts:
            stacks = document.pop("stacks", [])
            rows = list(document.items())
            for stack in stacks if isinstance(stacks, list) else []:
                rows += [(f"  {name}", value) for name, value in _shown(stack)]
            output.table(("", ""), rows)
    return ExitCode.DONE


def _by_path(archive: Archive, path: str) -> list[dict[str, object]]:
    found = tree.at(tree.tree_of(archive), path)
    instance = None if found.is_folder else instance_of(found.inode)
    if instance is not None:
        return [_facts(archive, instance)]
    return [{"path": path, "folder": found.is_folder, "size": found.size, "mtime_ns": found.mtime_ns}]


def _by_uid(archive: Archive, uid: str) -> list[dict[str, object]]:
    return [_facts(archive, instance) for instance in tree.instances_of(archive, uid)]


def _facts(archive: Archive, instance: InstanceId) -> dict[str, object]:
    row = archive.catalog.row(instance)
    where = archive.residency.of(instance)
    stored: dict[str, object] = {}
    # What is cold is told of without opening it: that would begin a restore.
    if where["residency"] not in NOT_READABLE:
        reader = archive.reconstructor.open(instance)
        try:
            stored = {**reader.info(), "stacks": archive.explain(instance)}
        finally:
            reader.close()
    return {
        "path": tree.path_of(archive, instance),
        "sop_instance_uid": row.sop_instance_uid,
        "series": instance.series,
        "position": instance.position,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
        "version": row.version,
        "conflict": row.conflict.name.lower(),
        **where,
        **stored,
    }


def _shown(stack: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The facts of a stack in lines."""
    yield "stack", f"{stack['frames']} frames, {output.size(stack['stored_bytes'])}"
    yield "stack ratio", round(stack["raw_bytes"] / max(1, stack["stored_bytes"]), 3)
    yield "profile", stack["profile"] or "not noted"
    yield "segments", f"{stack['segments']} of {stack['segment_frames']} frames, {stack['bands']} bands"
    if "reason" in stack:
        yield "order of frames", stack["order"]
        if stack["references"]:
            yield "predicted from", ", ".join(f"-{distance}" for distance in stack["references"])
        ranked = sorted(stack["candidates"], key=lambda one: -one["ratio"])
        yield "tried", ", ".join(f"{one['codec']} {one['ratio']:.2f}:1" for one in ranked)
        yield "reason", stack["reason"]
