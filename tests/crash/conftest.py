"""Archives at every stage of a short life, to be killed from there on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import samples
from tests.crash.server import Server, StepFailed

SERVERS = 2
INCOMING_FILES = {f"{number}.dcm": data for number, data in enumerate(samples.ct_series(3, 16, 16))}
"""What a client writes under ``incoming/``."""
ABORTED_FILES = {"0.dcm": INCOMING_FILES["0.dcm"], "1.dcm": INCOMING_FILES["1.dcm"][:-100]}
"""The same, where the second file was cut short."""


@dataclass(frozen=True)
class Stage:
    """An archive as it stands before a step, and what is true of it then."""

    root: Path
    """Never touched: tests copy it."""
    step: str
    args: tuple[str, ...]
    accepted: frozenset[str]
    """SHA-256 of every file whose import has returned."""
    events: tuple[str, ...]
    """What the step does when nothing stops it."""


@dataclass(frozen=True)
class Life:
    """An archive's life without a crash."""

    folder: Path
    sources: tuple[str, ...]
    stages: dict[str, Stage]
    end: dict[str, Any]
    """What `look` gives at the end."""

    def stage(self, name: str) -> Stage:
        """The archive before one of: an import, a pack, together, repack, recover."""
        return self.stages[name]


def first_files() -> dict[str, bytes]:
    """Two CT series, one number twice in a series, a file without pixels, and one that is no instance."""
    files = samples.ct_series(3, 16, 16) + samples.ct_series(2, 16, 16, 1)
    same_number = files[0].replace(samples.uid("Sample^Patient", 0, 1).encode(), _other_uid(files[0]))
    named = {f"{number}.dcm": data for number, data in enumerate([*files, same_number])}
    return {**named, "report": samples.structured_report(), "readme.txt": b"no instance"}


def later_files() -> dict[str, bytes]:
    """Late slices, new words and other pixels under known UIDs, and a series nobody has seen."""
    series, late = samples.ct_series(3, 16, 16), samples.ct_series(5, 16, 16)[3:]
    reworded = series[1].replace(b"Head routine", b"Head Routine")
    repainted = series[2][:-9] + bytes(byte ^ 1 for byte in series[2][-9:])
    files = [*late, reworded, repainted, *samples.ct_series(1, 16, 16, 2, patient="Second^Patient")]
    return {f"{number}.dcm": data for number, data in enumerate(files)}


def _other_uid(data: bytes) -> bytes:
    known = samples.uid("Sample^Patient", 0, 1)
    return (known[:-1] + ("7" if known[-1] != "7" else "8")).encode()


@pytest.fixture(scope="session")
def servers() -> Iterator[list[Server]]:
    """Processes that run steps: one for each thread of a test."""
    started = [Server() for _ in range(SERVERS)]
    yield started
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def server(servers: list[Server]) -> Server:
    """One process that runs steps."""
    return servers[0]


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory, servers: list[Server]) -> Life:
    """Runs the life once and keeps a copy of the archive at every stage."""
    folder = tmp_path_factory.mktemp("life")
    sources = []
    for name, files in (("first", first_files()), ("later", later_files())):
        (folder / name).mkdir()
        for file, data in files.items():
            (folder / name / file).write_bytes(data)
        sources.append(str(folder / name))
    root = str(folder / "archive")
    servers[0].run("create", root)
    plan: list[tuple[str, str, tuple[str, ...]]] = [
        ("first import", "import_files", (sources[0],)),
        ("first pack", "pack", ()),
        ("second import", "import_files", (sources[1],)),
        ("second pack", "pack", ()),
    ]
    stages = {}
    for name, step, args in plan:
        stages[name] = _stage(servers[0], folder / name, root, step, args)
        servers[0].run(step, root, *args)
    end = servers[0].run("look", root).value
    stages["repack"] = _stage(servers[0], folder / "repack", root, "repack", ("dense",))
    stages["together"] = _stage(
        servers[0], folder / "together", str(folder / "second pack"), "pack_together", ()
    )
    stages["recover"] = _stage(servers[0], folder / "recover", root, "recover_in_place", ())
    # Recovering matters most where the spool is not empty: decisions and raw bytes are all there is.
    stages["recover with a spool"] = _stage(
        servers[0], folder / "spooled", str(folder / "second pack"), "recover_in_place", ()
    )
    return Life(folder, tuple(sources), stages, end)


def sha(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def incoming_stages(tmp_path_factory: pytest.TempPathFactory, servers: list[Server]) -> dict[str, Stage]:
    """Archives before a client writes, before its files are packed, and before it writes into stubs."""
    folder = tmp_path_factory.mktemp("incoming")
    source = folder / "source"
    source.mkdir()
    for name, data in INCOMING_FILES.items():
        (source / name).write_bytes(data)
    root = folder / "archive"
    servers[0].run("create", str(root))
    (root / "dicomfs.toml").write_text("[pack]\nquiet_seconds = 0\n[archive]\nminimum_free_bytes = 0\n")
    found = {}
    accepted: frozenset[str] = frozenset()
    for step, args in (("write_incoming", (str(source),)), ("pack_incoming", ()), ("rewrite_incoming", ())):
        kept, dry = folder / step, folder / f"{step} dry"
        servers[0].run("copy", str(root), str(kept))
        servers[0].run("copy", str(root), str(dry))
        events = servers[0].run(step, str(dry), *args).events
        found[step] = Stage(kept, step, args, accepted, tuple(events))
        servers[0].run(step, str(root), *args)
        accepted = frozenset(map(sha, INCOMING_FILES.values()))
    return found


@pytest.fixture(scope="session")
def aborted_stage(tmp_path_factory: pytest.TempPathFactory, servers: list[Server]) -> Stage:
    """An archive with a whole file, and a last one that was cut short, before that is emptied."""
    folder = tmp_path_factory.mktemp("aborted")
    source, root = folder / "source", str(folder / "archive")
    source.mkdir()
    for name, data in ABORTED_FILES.items():
        (source / name).write_bytes(data)
    servers[0].run("create", root)
    (folder / "archive" / "dicomfs.toml").write_text(
        "[pack]\nquiet_seconds = 0\n[archive]\nminimum_free_bytes = 0\n"
    )
    servers[0].run("write_incoming", root, str(source))
    return _stage(servers[0], folder / "kept", root, "abort_incoming", ())


def _stage(server: Server, kept: Path, root: str, step: str, args: tuple[str, ...]) -> Stage:
    server.run("copy", root, str(kept))
    dry = str(kept) + " dry"
    server.run("copy", root, dry)
    accepted = frozenset(str(found[0]) for found in server.run("look", dry).value["tree"].values())
    return Stage(kept, step, args, accepted, tuple(server.run(step, dry, *args).events))


def on_all(
    servers: list[Server],
    stage: Stage,
    work: Callable[[Server, Stage, int], Iterator[str]],
    events: Sequence[int] | None = None,
) -> list[str]:
    """Run ``work(server, stage, event)`` for every event of a stage, or for some, a thread per server.

    Returns their problems.
    """
    chosen = range(len(stage.events)) if events is None else events

    def share(index: int) -> list[str]:
        found: list[str] = []
        for at in chosen[index :: len(servers)]:
            killed = f"{stage.step} at {at}, {stage.events[at]}"
            try:
                found += [f"{killed}: {problem}" for problem in work(servers[index], stage, at)]
            except StepFailed as problem:
                found.append(f"{killed}: {problem}")
        return found

    with ThreadPoolExecutor(len(servers)) as pool:
        return [problem for found in pool.map(share, range(len(servers))) for problem in found]
