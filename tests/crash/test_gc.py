"""gc may die at any durable call: what is needed stays, what is not goes with the next run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server
from tests.crash.test_gaps import killed_at

PATIENT = "Sample"
_MOST = 16
"""Calls at which gc is killed: objects are deleted one like the other, so some are left out in the middle."""
COLLECTING = (
    # Condemned: what lies on the tier and nobody knows.
    "commit index/catalog",
    # Let go, deleted, the note ended; header packs first.
    "commit index/catalog",
    "unlink local/header",
    "commit index/catalog",
    "commit index/catalog",
    "unlink local/pixel",
    "commit index/catalog",
)


@pytest.fixture(scope="module")
def stage(life: Life, servers: list[Server]) -> Stage:
    """An archive that died when it had forgotten a patient, whose objects are condemned; before gc."""
    whole, server = life.stage("recover").root, servers[0]
    root, dry = life.folder / "gc", life.folder / "gc dry"
    server.run("copy", str(whole), str(dry))
    events = server.run("forget", str(dry), PATIENT).events
    at = events.index("unlink run/deciding")
    while True:
        server.run("copy", str(whole), str(root))
        assert server.run("forget", str(root), PATIENT, at=at, after=True).killed
        if len(_headers(root)) == len(_headers(whole)):
            break
        # Runs differ: where one has fewer events before that one, it went on to delete.
        at -= 1
        assert at > 0
        shutil.rmtree(root)
    left = frozenset(_shown(server, str(root)))
    assert left
    # And what a move that died leaves: an object that nobody knows.
    stray = next(path for path in (whole / "local" / "pixel").glob("*/*"))
    twin = root / "local" / "pixel" / "00" / ("00" + stray.name[2:])
    twin.parent.mkdir(exist_ok=True)
    shutil.copy(stray, twin)
    shutil.rmtree(dry)
    server.run("copy", str(root), str(dry))
    return Stage(root, "collect", (), left, tuple(server.run("collect", str(dry)).events))


def _headers(root: Path) -> list[Path]:
    return [path for path in (root / "local" / "header").rglob("*") if path.is_file()]


def _shown(server: Server, root: str) -> list[str]:
    return [str(found[0]) for found in server.run("look", root).value["tree"].values()]


def collected_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill just after an event, recover or not, and collect again."""
    root = killed_at(life, stage, server, at, after=True)
    if at % 2:
        yield from server.run("recover_in_place", str(root)).value
    if frozenset(_shown(server, str(root))) != stage.accepted:
        yield "other files are shown"
    yield from server.run("collect", str(root)).value
    looked = server.run("look", str(root)).value
    yield from (*looked["problems"], *looked["notes"], *looked["left"])
    if frozenset(str(found[0]) for found in looked["tree"].values()) != stage.accepted:
        yield "other files are shown after it was collected again"
    shutil.rmtree(root)


def test_a_kill_at_any_durable_call_of_gc_loses_nothing_and_leaves_nothing(
    life: Life, servers: list[Server], stage: Stage
) -> None:
    half = _MOST // 2
    ends = [*range(half), *range(max(half, len(stage.events) - half), len(stage.events))]
    problems = on_all(servers, stage, partial(collected_again, life), ends)
    assert not problems, "\n".join(problems)


def test_durable_calls_of_gc_come_in_the_order_that_the_crash_contract_gives(stage: Stage) -> None:
    events = iter(stage.events)
    assert [wanted for wanted in COLLECTING if wanted not in events] == []
