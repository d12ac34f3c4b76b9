"""Moving packs may die at any durable call: nothing is lost, and the next run ends what was begun."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from functools import partial

from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server
from tests.crash.test_gaps import killed_at, lost, recovered_otherwise, unfinished

MOVING = (
    "fsync staging",
    "commit index/catalog",
    "link local/pixel",
    "fsync local/pixel",
    "commit index/catalog",
    "unlink local/pixel",
    "fsync local/pixel",
    "commit index/catalog",
    "unlink staging",
)


def moved_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just before and just after an event; then move again, in one case after recovering."""
    for after in (False, True):
        root = killed_at(life, stage, server, at, after=after)
        yield from lost(stage, server.run("look", str(root)).value)
        if after:
            yield from recovered_otherwise(server, root, stage, life.end)
        yield from server.run("repack", str(root), "dense").value
        if server.run("profiles", str(root)).value != ["dense"]:
            yield f"not all was moved: {server.run('profiles', str(root)).value}"
        # What was placed and not committed, an import or a pack cleans up.
        yield from unfinished(life, server.run("finish", str(root), *life.sources).value)
        shutil.rmtree(root)


def test_a_kill_at_any_durable_call_loses_nothing_and_moving_goes_on(
    life: Life, servers: list[Server]
) -> None:
    stage = life.stage("repack")
    # One pack is moved like the other: up to where the second one is done.
    ends = [at for at, event in enumerate(stage.events) if event == "unlink staging"]
    assert len(ends) > 2
    two = dataclasses.replace(stage, events=stage.events[: ends[1] + 2])
    problems = on_all(servers, two, partial(moved_again, life))
    assert not problems, "\n".join(problems)


def test_durable_calls_of_moving_come_in_the_order_that_the_crash_contract_gives(life: Life) -> None:
    events = iter(life.stage("repack").events)
    assert [wanted for wanted in MOVING if wanted not in events] == []
