"""A process that dies at any call that changes what is durable leaves an archive that loses nothing.

Every gap is tried twice: just before a call, then the work is simply done again; and just after it, then
the index is rebuilt from packs, journal and spool first.  docs/durability.md names the gaps.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server

WRITING = ("first import", "first pack", "second import", "second pack")
RECOVERING = ("recover", "recover with a spool")


def names(look: dict[str, Any]) -> dict[str, str]:
    """Path -> SHA-256."""
    return {path: found[0] for path, found in look["tree"].items()}


def inodes(look: dict[str, Any]) -> dict[str, int]:
    """SHA-256 -> inode number."""
    return {found[0]: found[1] for found in look["tree"].values()}


def lost(stage: Stage, look: dict[str, Any]) -> Iterator[str]:
    """What a crash must never do, whoever looks next."""
    digests = [found[0] for found in look["tree"].values()]
    if missing := stage.accepted - set(digests):
        yield f"lost or changed: {sorted(missing)}; there are {names(look)}"
    if len(digests) != len(set(digests)):
        yield f"shown twice: {names(look)}"
    if len(digests) != look["instances"]:
        yield f"{look['instances']} instances, {len(digests)} of them shown"
    if look["problems"]:
        yield f"problems: {look['problems']}"


def recovered_otherwise(server: Server, root: Path, stage: Stage, expected: dict[str, Any]) -> Iterator[str]:
    """Recover an archive in place: what is lost then, and whether it shows another tree than expected."""
    yield from server.run("recover_in_place", str(root)).value
    recovered = server.run("look", str(root)).value
    yield from lost(stage, recovered)
    if (names(recovered), inodes(recovered)) != (names(expected), inodes(expected)):
        yield "another tree after recover"


def unfinished(life: Life, look: dict[str, Any]) -> Iterator[str]:
    """How an archive differs from one that nobody killed."""
    if names(look) != names(life.end):
        yield f"another tree: {set(names(look).items()) ^ set(names(life.end).items())}"
    for what in ("problems", "notes", "left", "waiting", "intents"):
        if look[what]:
            yield f"{what}: {look[what]}"


def killed_at(life: Life, stage: Stage, server: Server, at: int, after: bool) -> Path:
    """A copy of a stage's archive whose step died at an event."""
    root = life.folder / f"{stage.root.name}-{at}-{after}"
    server.run("copy", str(stage.root), str(root))
    assert server.run(stage.step, str(root), *stage.args, at=at, after=after).killed, "went on"
    return root


def done_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just before an event; look, do the work again, recover."""
    root = killed_at(life, stage, server, at, after=False)
    yield from lost(stage, server.run("look", str(root)).value)
    end = server.run("finish", str(root), *life.sources).value
    yield from unfinished(life, end)
    yield from server.run("recover_in_place", str(root)).value
    recovered = server.run("look", str(root)).value
    yield from unfinished(life, recovered)
    if inodes(recovered) != inodes(end):
        yield "other inode numbers after recover"
    shutil.rmtree(root)


def recovered_first(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just after an event; recover, look, do the work again."""
    root = killed_at(life, stage, server, at, after=True)
    yield from server.run("recover_in_place", str(root)).value
    yield from lost(stage, server.run("look", str(root)).value)
    yield from unfinished(life, server.run("finish", str(root), *life.sources).value)
    shutil.rmtree(root)


@pytest.mark.parametrize("name", WRITING)
def test_a_kill_before_any_durable_call_loses_nothing_and_the_work_can_be_done_again(
    life: Life, servers: list[Server], name: str
) -> None:
    problems = on_all(servers, life.stage(name), partial(done_again, life))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", WRITING)
def test_a_kill_after_any_durable_call_can_be_followed_by_recover(
    life: Life, servers: list[Server], name: str
) -> None:
    problems = on_all(servers, life.stage(name), partial(recovered_first, life))
    assert not problems, "\n".join(problems)


ACCEPTING = (
    "fsync spool/tmp",
    "commit index/catalog",
    "link local/journal",
    "fsync local/journal",
    "commit index/catalog",
    "touch run/accepting",
    "replace spool",
    "fsync spool",
    "commit index/spool",
    "commit index/catalog",
    "unlink run/accepting",
)
PACKING = (
    "fsync staging",
    "commit index/catalog",
    "link local/pixel",
    "fsync local/pixel",
    "link local/header",
    "fsync local/header",
    "unlink staging",
    "commit index/catalog",
    "commit index/spool",
    "unlink spool",
)


@pytest.mark.parametrize("name, order", [("second import", ACCEPTING), ("second pack", PACKING)])
def test_durable_calls_come_in_the_order_that_the_crash_contract_gives(
    life: Life, name: str, order: tuple[str, ...]
) -> None:
    """docs/durability.md numbers these gaps; each of them is among those that the tests above kill at."""
    events = iter(life.stage(name).events)
    assert [wanted for wanted in order if wanted not in events] == []
