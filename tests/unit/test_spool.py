"""The spool folder: what is admitted is there, what the dead left goes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomfs.model import InstanceId
from dicomfs.spool import Spool

DIGEST = bytes(range(32))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


def admit(spool: Spool, *ids: InstanceId) -> None:
    desk = spool.desk()
    files = []
    for instance in ids:
        path = desk.new_path()
        path.write_bytes(b"bytes")
        files.append((path, instance, DIGEST))
    spool.admit(files)
    desk.close()


def test_files_come_in_order_of_series_and_position(spool: Spool) -> None:
    ids = [InstanceId(2, 1), InstanceId(1, 300), InstanceId(2**37 - 1, 2**23 - 1), InstanceId(1, 2)]
    admit(spool, *ids)
    found = list(spool.files())
    assert [file.id for file in found] == sorted(ids)
    assert all(file.path == spool.path(file.id, DIGEST) and file.sha256 == DIGEST for file in found)
    assert {file.path.read_bytes() for file in found} == {b"bytes"}


def test_admitting_and_releasing_again_is_harmless(spool: Spool) -> None:
    one = InstanceId(1, 0)
    admit(spool, one)
    admit(spool, one)
    assert len(list(spool.files())) == 1
    for _ in range(2):
        spool.release([(one, DIGEST)])
        assert list(spool.files()) == []
    assert [path.name for path in spool.folder.iterdir()] == ["tmp"]


def test_a_release_leaves_the_other_files_of_a_series(spool: Spool) -> None:
    admit(spool, InstanceId(1, 0), InstanceId(1, 1))
    spool.release([(InstanceId(1, 0), DIGEST), (InstanceId(7, 7), DIGEST)])
    assert [file.id for file in spool.files()] == [InstanceId(1, 1)]


def test_strangers_are_passed_over(spool: Spool) -> None:
    admit(spool, InstanceId(1, 0))
    (spool.folder / "notes").write_text("mine")
    (spool.folder / "0000000002").write_text("a file, no folder")
    (spool.folder / "0000000001" / "notes").write_text("mine")
    (spool.folder / "0000000001" / f"000001-{'0' * 63}").write_text("too short")
    assert [file.id for file in spool.files()] == [InstanceId(1, 0)]


def test_a_desk_of_a_living_worker_stays_and_one_of_a_dead_worker_goes(spool: Spool) -> None:
    alive, dead = spool.desk(), spool.desk()
    alive.new_path().write_bytes(b"half")
    dead.new_path().write_bytes(b"half")
    assert dead._lock is not None
    os.close(dead._lock)
    other = spool.desk()
    assert alive.folder.exists()
    assert not dead.folder.exists()
    assert alive.new_path() != other.new_path()
    for desk in (alive, other):
        desk.close()
        desk.close()
    assert [path for path in (spool.folder / "tmp").iterdir() if path.is_dir()] == []
