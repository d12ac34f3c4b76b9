"""Programs that keep their files under ``incoming/`` for long, and are packed under their hands."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests import samples
from tests.archives import contents, digests
from tests.fuse.conftest import Serve, Served, run
from tests.fuse.test_incoming import until
from tests.orthanc import Orthanc

pytestmark = pytest.mark.real_mount
FILES = [data for seed in range(3) for data in samples.ct_series(8, 32, 32, seed)]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    Archive.create(tmp_path / "archive").close()
    (tmp_path / "archive" / "dicomfs.toml").write_text("[archive]\nminimum_free_bytes = 0\n")
    return Archive.open(tmp_path / "archive")


@pytest.fixture
def served(archive: Archive, serve_archive: Serve) -> Served:
    return serve_archive(archive.paths.root)


def test_orthanc_keeps_its_storage_under_incoming_while_it_is_packed(
    archive: Archive, served: Served, tmp_path: Path
) -> None:
    folder = served.mountpoint / "incoming" / "orthanc"
    folder.mkdir()
    with Orthanc(folder, tmp_path) as server:
        stored = {server.store(data): data for data in FILES[:-4]}
        assert archive.pack("fast").failed == []
        assert {name: server.file(name) for name in stored} == stored
        stored |= {server.store(data): data for data in FILES[-4:]}
    assert archive.pack("fast").failed == []
    assert digests(FILES) <= contents(archive)
    with Orthanc(folder, tmp_path) as server:
        assert {name: server.file(name) for name in stored} == stored
    archive.close()


def test_a_second_backup_by_restic_reads_no_packed_file_again(
    archive: Archive, served: Served, tmp_path: Path
) -> None:
    incoming = served.mountpoint / "incoming"
    for number, data in enumerate(FILES):
        (incoming / f"{number}.dcm").write_bytes(data)
    (incoming / "notes.txt").write_bytes(b"no instance")
    environment = {**os.environ, "RESTIC_PASSWORD": "test", "RESTIC_CACHE_DIR": str(tmp_path / "cache")}
    repository = ("restic", "-r", tmp_path / "repository")
    run(*repository, "init", env=environment)

    def back_up() -> tuple[int, int, int]:
        text = run(*repository, "backup", incoming, env=environment)
        found = re.search(r"Files:\s+(\d+) new,\s+(\d+) changed,\s+(\d+) unmodified", text)
        assert found is not None, text
        return int(found[1]), int(found[2]), int(found[3])

    assert back_up() == (len(FILES) + 1, 0, 0)
    assert archive.pack("fast").failed == []
    until(lambda: sum(path.stat().st_blocks for path in archive.paths.incoming.glob("*.dcm")) == 0)
    assert back_up() == (0, 0, len(FILES) + 1)
    archive.close()
    run(*repository, "restore", "latest", "--target", tmp_path / "restored", env=environment)
    restored = sorted(path.read_bytes() for path in (tmp_path / "restored").rglob("*.dcm"))
    assert restored == sorted(FILES)
