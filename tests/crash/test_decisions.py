"""Forgetting may die at any durable call: once it is journaled it comes into effect, whatever happens."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from functools import partial

import pytest

from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server
from tests.crash.test_gaps import killed_at

PATIENT = "Sample"
DECIDING = (
    "touch run/deciding",
    "link local/journal",
    "fsync local/journal",
    "commit index/catalog",
    "commit index/spool",
    "unlink run/deciding",
    "commit index/catalog",
)


@pytest.fixture(scope="module")
def stage(life: Life, servers: list[Server]) -> Stage:
    """The archive at the end of the life, before it forgets a patient."""
    root = life.stage("recover").root
    dry = life.folder / "forget dry"
    servers[0].run("copy", str(root), str(dry))
    events = servers[0].run("forget", str(dry), PATIENT).events
    left = _digests(servers[0].run("look", str(dry)).value)
    assert left
    return Stage(root, "forget", (PATIENT,), left, tuple(events))


def _digests(looked: dict[str, dict[str, list[object]]]) -> frozenset[str]:
    return frozenset(str(found[0]) for found in looked["tree"].values())


def forgotten_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just after an event, recover or not, and do it again."""
    whole = frozenset(str(found[0]) for found in life.end["tree"].values())
    root = killed_at(life, stage, server, at, after=True)
    looked = server.run("look", str(root)).value
    yield from looked["problems"]
    shown = _digests(looked)
    if shown not in (stage.accepted, whole):
        yield "some of it is there"
    if shown == whole and at >= stage.events.index("link local/journal"):
        yield "journaled, and still there"
    if at % 2:
        yield from server.run("recover_in_place", str(root)).value
        if _digests(server.run("look", str(root)).value) != shown:
            yield "recover shows other files"
    yield from server.run("forget", str(root), PATIENT).value
    yield from server.run("collect", str(root)).value
    yield from server.run("pack", str(root)).value
    looked = server.run("look", str(root)).value
    yield from (*looked["problems"], *looked["notes"], *looked["left"])
    if _digests(looked) != stage.accepted:
        yield "not forgotten in the end"
    shutil.rmtree(root)


def test_a_kill_at_any_durable_call_forgets_all_or_nothing(
    life: Life, servers: list[Server], stage: Stage
) -> None:
    # Objects are destroyed one like the other: up to where the first ones are gone.
    end = stage.events.index("unlink run/deciding") + 12
    some = dataclasses.replace(stage, events=stage.events[:end])
    problems = on_all(servers, some, partial(forgotten_again, life))
    assert not problems, "\n".join(problems)


def test_durable_calls_of_forgetting_come_in_the_order_that_the_crash_contract_gives(stage: Stage) -> None:
    events = iter(stage.events)
    assert [wanted for wanted in DECIDING if wanted not in events] == []
