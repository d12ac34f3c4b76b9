"""Writing into ``incoming/``, becoming stubs and becoming whole again, killed around every durable call.

docs/durability.md numbers the gaps: I1 to I5, S1 to S5, W1 to W4.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import ABORTED_FILES, Stage, on_all, sha
from tests.crash.conftest import INCOMING_FILES as FILES
from tests.crash.server import Server

REWRITTEN = {**FILES, "0.dcm": b"x" + FILES["0.dcm"][1:], "1.dcm": b""}


def content(shown: dict[str, Any]) -> dict[str, str]:
    """Name -> SHA-256."""
    return {name: found[0] for name, found in shown.items()}


def wrong(stage: Stage, root: Path, shown: dict[str, Any], digests: set[str]) -> Iterator[str]:
    """What a crash must never do to files that a client closed."""
    if not stage.accepted <= digests:
        yield "an accepted instance is lost"
    before, after = FILES, REWRITTEN
    closed = set(FILES)
    if stage.step == "write_incoming":
        noted = Path(f"{root}.closed")
        closed = set(noted.read_text().split()) if noted.exists() else set()
        if not {sha(FILES[name]) for name in closed} <= digests:
            yield "closed, and no instance"
    for name in closed:
        allowed = {sha(before[name])}
        if stage.step == "rewrite_incoming":
            allowed |= {sha(after[name])}
        if content(shown).get(name) not in allowed:
            yield f"{name} has other bytes"


def killed(server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Die just before an event; look; do what a mount and the packer do next; look again."""
    root = Path(f"{stage.root} {at}")
    server.run("copy", str(stage.root), str(root))
    assert server.run(stage.step, str(root), *stage.args, at=at).killed, "went on"
    look = server.run("look", str(root)).value
    digests = {found[0] for found in look["tree"].values()}
    yield from wrong(stage, root, server.run("look_incoming", str(root)).value, digests)
    failed = server.run("pack_incoming", str(root)).value
    shown, look = server.run("look_incoming", str(root)).value, server.run("look", str(root)).value
    digests = {found[0] for found in look["tree"].values()}
    yield from failed
    yield from wrong(stage, root, shown, digests)
    yield from look["problems"]
    yield from (f"left: {left}" for left in look["left"])
    for name, (digest, stub, blocks) in shown.items():
        if digest in digests and (not stub or blocks):
            yield f"{name} is an instance and keeps {blocks} blocks"
        if digest not in digests and digest in map(sha, FILES.values()):
            yield f"{name} is whole and was not taken"
    shutil.rmtree(root)


@pytest.mark.parametrize("step", ["write_incoming", "pack_incoming", "rewrite_incoming"])
def test_a_kill_at_any_durable_call_loses_nothing_that_a_client_closed(
    incoming_stages: dict[str, Stage], servers: list[Server], step: str
) -> None:
    problems = on_all(servers, incoming_stages[step], killed)
    assert not problems, "\n".join(problems)


def aborted(server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Die just before an event of a withdrawal; look; do what a mount and the packer do next; look again."""
    root = Path(f"{stage.root} {at}")
    whole, cut = map(sha, ABORTED_FILES.values())
    server.run("copy", str(stage.root), str(root))
    assert server.run(stage.step, str(root), at=at).killed, "went on"
    for packed in (False, True):
        if packed:
            yield from server.run("pack_incoming", str(root)).value
        shown, look = server.run("look_incoming", str(root)).value, server.run("look", str(root)).value
        digests = {found[0] for found in look["tree"].values()}
        if not {whole} <= digests <= {whole, cut}:
            yield f"{len(digests)} instances are shown"
        if content(shown)["0.dcm"] != whole:
            yield "the other file has other bytes"
        if content(shown)["1.dcm"] not in {cut, sha(b"")}:
            yield "the file has bytes that nobody wrote"
        if packed and content(shown)["1.dcm"] == cut and cut not in digests:
            yield "the file is there and is no instance"
        yield from look["problems"]
        yield from (f"left: {left}" for left in look["left"] if packed or not left.startswith("spool"))
    shutil.rmtree(root)


def test_a_kill_at_any_durable_call_of_a_withdrawal_leaves_one_instance_or_two(
    aborted_stage: Stage, servers: list[Server]
) -> None:
    events = iter(aborted_stage.events)
    order = ("touch run/deciding", "commit", "unlink spool", "unlink run/deciding", "removexattr incoming")
    assert [wanted for wanted in order if not any(event.startswith(wanted) for event in events)] == []
    problems = on_all(servers, aborted_stage, aborted)
    assert not problems, "\n".join(problems)


WRITING = ("fsync spool/tmp", "replace spool", "fsync spool", "unlink run/accepting", "setxattr incoming")
RELEASING = (
    "unlink spool",
    "fsync stubs",
    "removexattr incoming",
    "setxattr incoming",
    "fsync incoming",
    "punch incoming",
    "replace stubs/waiting",
)
WHOLE = (
    "fsync incoming",
    "removexattr incoming",
    "fsync incoming",
    "setxattr incoming",
    "removexattr incoming",
)


@pytest.mark.parametrize(
    "step, order",
    [("write_incoming", WRITING), ("pack_incoming", RELEASING), ("rewrite_incoming", WHOLE)],
)
def test_the_calls_come_in_the_order_that_the_crash_contract_gives(
    incoming_stages: dict[str, Stage], step: str, order: tuple[str, ...]
) -> None:
    events = iter(incoming_stages[step].events)
    assert [wanted for wanted in order if wanted not in events] == []
