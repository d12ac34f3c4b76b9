"""Power cuts: every step dies with its disk at chosen events, and what was not synced is gone.

The archive lies on ext4 on a loop device.  The file system is shut down without writing its journal
(EXT4_IOC_SHUTDOWN) in the middle of a step; mounted again, it holds what a disk would hold after a power
cut: what was synced, and nothing that was not.  Needs root, for the mounts.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.crash.conftest import INCOMING_FILES, Life, Stage, on_all, sha
from tests.crash.server import Server
from tests.crash.test_gaps import lost, names, unfinished
from tests.crash.test_incoming_gaps import content, wrong

CUTS = 6
"""Events of each step at which the power is cut, spread over the step."""
DISK_BYTES = 48 << 20


def chosen(stage: Stage) -> list[int]:
    """Some events, spread over the step, beginning with another one in each."""
    count = len(stage.events)
    offset = sum(map(ord, stage.step)) % max(1, count // CUTS)
    return sorted({min(count - 1, offset + number * count // CUTS) for number in range(CUTS)})


class Disk:
    """A disk of its own for one archive, with ext4 on it."""

    def __init__(self, folder: Path, stage: Stage, server: Server, name: str) -> None:
        self.image, self.mountpoint = folder / f"{name}.img", folder / f"{name}.disk"
        self.root = folder / name
        """Where the archive is found; what tests note beside it is on no disk that dies."""
        self.mountpoint.mkdir()
        with self.image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.mount()
        server.run("copy", str(stage.root), str(self.mountpoint / "archive"))
        self.root.symlink_to(self.mountpoint / "archive")
        (self.root / "dicomfs.toml").write_text(
            "[pack]\nquiet_seconds = 0\n[archive]\nminimum_free_bytes = 0\n"
        )
        subprocess.run(["sync", "-f", self.mountpoint], check=True)

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.mountpoint], check=True)

    def cut_power(self) -> None:
        """What the next start of the machine finds; its index was made under another run of the kernel."""
        subprocess.run(["umount", self.mountpoint], check=True)
        self.mount()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.mountpoint], check=True)
        self.image.unlink()


def died(disk: Disk, server: Server, stage: Stage, at: int) -> None:
    """Run the step up to an event, and lose the power there."""
    assert server.run(stage.step, str(disk.root), *stage.args, at=at, power=True).killed, "went on"
    disk.cut_power()
    server.run("forget_boot", str(disk.root))


def done_again(life: Life, folder: Path, server: Server, stage: Stage, at: int) -> Iterator[str]:
    if at not in chosen(stage):
        return
    with Disk(folder, stage, server, f"{stage.root.name.replace(' ', '-')}-{at}") as disk:
        died(disk, server, stage, at)
        yield from lost(stage, server.run("look", str(disk.root)).value)
        yield from unfinished(life, server.run("finish", str(disk.root), *life.sources).value)
        yield from server.run("recover_in_place", str(disk.root)).value
        if names(server.run("look", str(disk.root)).value) != names(life.end):
            yield "another tree after recover"


@pytest.mark.parametrize("name", ["first import", "first pack", "second import", "second pack", "together"])
def test_a_power_cut_loses_nothing_that_was_accepted(
    life: Life, servers: list[Server], tmp_path: Path, name: str
) -> None:
    problems = on_all(servers, life.stage(name), partial(done_again, life, tmp_path))
    assert not problems, "\n".join(problems)


def closed_before(folder: Path, server: Server, stage: Stage, at: int) -> Iterator[str]:
    if at not in chosen(stage):
        return
    with Disk(folder, stage, server, f"{stage.step}-{at}") as disk:
        died(disk, server, stage, at)
        digests = {found[0] for found in server.run("look", str(disk.root)).value["tree"].values()}
        noted = Path(f"{disk.root}.closed")
        closed = set(noted.read_text().split()) if noted.exists() else set()
        if not {sha(INCOMING_FILES[name]) for name in closed} | stage.accepted <= digests:
            yield "closed or accepted, and no instance"
        shown = server.run("look_incoming", str(disk.root)).value
        if stage.step != "write_incoming":
            # What was written long ago has its name and its bytes, or those of the write that died.
            yield from wrong(stage, disk.root, shown, digests)
        elif not set(content(shown).values()) <= {sha(data) for data in INCOMING_FILES.values()} | {EMPTY}:
            yield "a name with other bytes than were written"
        yield from server.run("pack_incoming", str(disk.root)).value
        look = server.run("look", str(disk.root)).value
        yield from look["problems"]
        if not stage.accepted <= {found[0] for found in look["tree"].values()}:
            yield "an accepted instance is lost"


EMPTY = sha(b"")


@pytest.mark.parametrize("step", ["write_incoming", "pack_incoming", "rewrite_incoming"])
def test_a_power_cut_loses_nothing_that_was_closed_under_incoming(
    incoming_stages: dict[str, Stage], servers: list[Server], tmp_path: Path, step: str
) -> None:
    problems = on_all(servers, incoming_stages[step], partial(closed_before, tmp_path))
    assert not problems, "\n".join(problems)


def test_the_disk_forgets_what_was_not_synced(
    incoming_stages: dict[str, Stage], servers: list[Server], tmp_path: Path
) -> None:
    """Else the tests above would prove nothing: after the same cut an unsynced file is gone."""
    stage = incoming_stages["write_incoming"]
    with Disk(tmp_path, stage, servers[0], "forgets") as disk:
        (disk.root / "unsynced").write_bytes(b"here")
        (disk.root / "synced").write_bytes(b"here")
        descriptor = os.open(disk.root / "synced", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        (disk.root / "later").write_bytes(b"here")
        servers[0].run(stage.step, str(disk.root), *stage.args, at=0, power=True)
        disk.cut_power()
        assert (disk.root / "synced").read_bytes() == b"here"
        assert not (disk.root / "later").exists()
