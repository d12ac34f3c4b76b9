"""Packing parts again together may die at any durable call: nothing is lost, and nothing is left for long."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial

from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server
from tests.crash.test_gaps import killed_at, lost, recovered_otherwise, unfinished

TOGETHER = (
    "link local/header",
    "fsync local/header",
    "commit index/catalog",
    "unlink staging",
    "unlink local/header",
    "commit index/catalog",
)


def begins(life: Life) -> int:
    """The placing of the last header pack: up to there it is packing like any other."""
    events = life.stage("together").events
    return max(at for at, event in enumerate(events) if event == "link local/header")


def packed_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just before and just after an event; look; recover in one case; do the work again."""
    if at < begins(life):
        return
    for after in (False, True):
        root = killed_at(life, stage, server, at, after=after)
        yield from lost(stage, server.run("look", str(root)).value)
        if after:
            yield from recovered_otherwise(server, root, stage, life.end)
        yield from server.run("pack_together", str(root)).value
        yield from unfinished(life, server.run("finish", str(root), *life.sources).value)
        shutil.rmtree(root)


def test_a_kill_at_any_durable_call_loses_nothing_and_the_work_goes_on(
    life: Life, servers: list[Server]
) -> None:
    problems = on_all(servers, life.stage("together"), partial(packed_again, life))
    assert not problems, "\n".join(problems)


def test_the_calls_come_in_the_order_that_the_crash_contract_gives(life: Life) -> None:
    events = iter(life.stage("together").events[begins(life) :])
    assert [wanted for wanted in TOGETHER if wanted not in events] == []
