"""`dicomfs scp` ended with SIGKILL between and within stores: what it answered with success is there."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests import samples
from tests.archives import read_whole, rows
from tests.peers import Aborted, Modality, data_set
from tests.scp_processes import scp

ROUNDS = 4
SENDERS = 3


def send(port: int, files: list[bytes], acknowledged: set[bytes]) -> None:
    """Send until the server dies."""
    with (
        contextlib.suppress(Aborted, OSError),
        Modality(port, calling=threading.current_thread().name) as peer,
    ):
        for data in files:
            instance = samples.uid("kill", hash(data))
            if peer.store(data, instance=instance, piece=4096).status == 0:
                acknowledged.add(data)


def stored_in_folder(folder: Path) -> list[bytes]:
    return [data_set(path.read_bytes()) for path in folder.rglob("*.dcm")]


def stored_in_archive(root: Path) -> list[bytes]:
    with Archive.open(root) as archive:
        assert archive.verify(deep=True).problems == []
        return [data_set(read_whole(archive, row.id)) for _, row in rows(archive)]


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_what_was_answered_with_success_survives_a_kill(tmp_path: Path, kind: str) -> None:
    chance = random.Random(7)
    place = tmp_path / "place"
    options: list[str | Path] = []
    archive = place if kind == "archive" else None
    look = stored_in_archive if archive else stored_in_folder
    if archive:
        Archive.create(archive).close()
    else:
        place.mkdir()
        options = ["--into", place]
    acknowledged: set[bytes] = set()
    sent: set[bytes] = set()
    for number in range(ROUNDS):
        with scp(tmp_path / f"log{number}", *options, archive=archive) as server:
            senders = []
            for sender in range(SENDERS):
                series = samples.ct_series(60, 64, 64, seed=100 * number + sender)
                files = [data_set(data) for data in series]
                sent.update(files)
                arguments = (server.port, files, acknowledged)
                senders.append(threading.Thread(target=send, args=arguments, name=f"M{sender}"))
            before = len(acknowledged)
            for thread in senders:
                thread.start()
            while len(acknowledged) < before + 3:
                assert server.process.poll() is None
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.3))
            os.kill(server.process.pid, signal.SIGKILL)
            for thread in senders:
                thread.join()
            assert server.process.wait() == -signal.SIGKILL
        found = look(place)
        assert acknowledged <= set(found)
        assert set(found) <= sent
        assert len(found) == len(set(found))
    with scp(tmp_path / "log", *options, archive=archive) as server:
        assert server.port
        left = [
            path for path in place.rglob("*.part") if "spool" in path.parts or ".dicomfs-scp" in path.parts
        ]
        assert left == []
        assert server.end() == 0
