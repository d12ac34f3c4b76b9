"""Recovering in place may die anywhere, too: nothing is lost, and it can be started again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import samples
from tests.crash.conftest import Life, Stage, on_all
from tests.crash.server import Server, StepFailed
from tests.crash.test_gaps import killed_at, lost, recovered_otherwise, unfinished

STAGES = ("recover", "recover with a spool")


def recovered_again(life: Life, server: Server, stage: Stage, at: int) -> Iterator[str]:
    """Kill a recovery just before and just after an event; then let one run through, and finish the work."""
    before = server.run("look", str(stage.root)).value
    for after in (False, True):
        root = killed_at(life, stage, server, at, after=after)
        if (root / "index").is_dir():
            yield from lost(stage, server.run("look", str(root)).value)
        else:
            yield from _refusal(server, root)
        yield from recovered_otherwise(server, root, stage, before)
        yield from unfinished(life, server.run("finish", str(root), *life.sources).value)
        shutil.rmtree(root)


def _refusal(server: Server, root: Path) -> Iterator[str]:
    try:
        server.run("look", str(root))
    except StepFailed as problem:
        if "CatalogOutdated" not in str(problem) or "dicomfs recover" not in str(problem):
            yield f"no clear error: {problem}"
    else:
        yield "opened without an index"


@pytest.mark.parametrize("name", STAGES)
def test_a_recovery_killed_at_any_durable_call_can_be_started_again(
    life: Life, servers: list[Server], name: str
) -> None:
    problems = on_all(servers, life.stage(name), partial(recovered_again, life))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", STAGES)
def test_an_index_lost_in_the_middle_of_its_exchange_is_a_clear_error(
    life: Life, server: Server, name: str, tmp_path: Path
) -> None:
    stage = life.stage(name)
    root = tmp_path / "archive"
    server.run("copy", str(stage.root), str(root))
    exchange = stage.events.index("rename index.old")
    assert server.run(stage.step, str(root), at=exchange, after=True).killed
    assert (root / "index.new").is_dir()
    assert (root / "index.old").is_dir()
    assert not (root / "index").exists()
    with pytest.raises(StepFailed, match=r"CatalogOutdated: .*run `dicomfs recover`"):
        server.run("look", str(root))


@pytest.mark.parametrize("name", ["first pack", "second pack"])
def test_a_spool_index_thrown_away_after_a_reboot_is_made_again_the_same(
    life: Life, server: Server, name: str, tmp_path: Path
) -> None:
    stage = life.stage(name)
    root = tmp_path / "archive"
    server.run("copy", str(stage.root), str(root))
    before = server.run("look", str(root)).value
    server.run("forget_boot", str(root))
    (root / "index" / "spool" / "data.mdb").write_bytes(b"what a power cut leaves of an unsynced file")
    after = server.run("look", str(root)).value
    assert after["tree"] == before["tree"]
    assert after["waiting"] == before["waiting"] > 0
    assert not list(unfinished(life, server.run("finish", str(root), *life.sources).value))


@pytest.mark.parametrize("name", ["first import", "second import"])
def test_an_acceptance_cut_short_by_a_power_cut_leaves_whole_instances_or_none(
    life: Life, servers: list[Server], name: str
) -> None:
    """Whatever was admitted is listed after a reboot, though neither its index nor the mark is left."""

    def rebooted(server: Server, stage: Stage, at: int) -> Iterator[str]:
        root = killed_at(life, stage, server, at, after=True)
        server.run("forget_boot", str(root))
        (root / "run" / "accepting").unlink(missing_ok=True)
        yield from lost(stage, server.run("look", str(root)).value)
        yield from unfinished(life, server.run("finish", str(root), *life.sources).value)
        shutil.rmtree(root)

    problems = on_all(servers, life.stage(name), rebooted)
    assert not problems, "\n".join(problems)


def test_a_rebuild_after_a_reboot_may_die_anywhere(life: Life, servers: list[Server]) -> None:
    def rebuilt_again(server: Server, stage: Stage, at: int) -> Iterator[str]:
        root = life.folder / f"rebuild-{at}"
        server.run("copy", str(stage.root), str(root))
        server.run("forget_boot", str(root))
        killed = server.run("look", str(root), at=at).killed
        yield from lost(stage, server.run("look", str(root)).value)
        if not killed and at < len(life.stage("second pack").events) // 4:
            yield "went on"
        shutil.rmtree(root)

    problems = on_all(servers, life.stage("second pack"), rebuilt_again)
    assert not problems, "\n".join(problems)


def test_raw_bytes_stay_where_a_recovered_index_names_packs_that_are_gone(
    life: Life, server: Server, tmp_path: Path
) -> None:
    stage = life.stage("first pack")
    root = tmp_path / "archive"
    server.run("copy", str(stage.root), str(root))
    # Placed and synced, not committed: the spool still has everything.
    placed = max(at for at, event in enumerate(stage.events) if event == "fsync local/header")
    assert server.run(stage.step, str(root), at=placed, after=True).killed
    raw = {path.name: path.read_bytes() for path in (root / "spool").glob("0*/*")}
    assert raw
    for pack in (root / "local" / "pixel").glob("*/*"):
        pack.unlink()
    assert server.run("recover_in_place", str(root)).value
    server.run("pack", str(root))
    assert {path.name: path.read_bytes() for path in (root / "spool").glob("0*/*")} == raw


def test_a_decision_whose_winner_never_arrived_binds_no_later_file(
    life: Life, server: Server, tmp_path: Path
) -> None:
    """The journal says that the shown file yields to one that died with its acceptance."""
    (shown,) = samples.ct_series(1, 16, 16)
    sources = {
        "shown": shown,
        "winner": shown.replace(b"Head routine", b"Head Routine"),
        "loser": shown[:-9] + bytes(9),
    }
    for name, data in sources.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_bytes(data)
    root, dry = tmp_path / "archive", tmp_path / "dry"
    server.run("create", str(root))
    server.run("import_files", str(root), str(tmp_path / "shown"))
    server.run("copy", str(root), str(dry))
    events = server.run("import_files", str(dry), str(tmp_path / "winner")).events
    decided = events.index("fsync local/journal")
    assert server.run("import_files", str(root), str(tmp_path / "winner"), at=decided, after=True).killed
    assert server.run("recover_in_place", str(root)).value == []
    assert server.run("import_files", str(root), str(tmp_path / "loser")).value == [1, 0, 1, 0]
    before = server.run("look", str(root)).value["tree"]
    assert sorted(path.split("/")[1] for path in before) == ["patients", "versions"]
    server.run("forget_boot", str(root))
    assert server.run("look", str(root)).value["tree"] == before
    assert server.run("recover_in_place", str(root)).value == []
    assert server.run("look", str(root)).value["tree"] == before
