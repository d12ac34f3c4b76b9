"""Several processes on one index: writers take turns, readers see whole commits, the dead leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from dicomfs.index import Catalog
from tests.catalogs import commit, make_catalog, spool

ROOT = Path(__file__).resolve().parents[3]

_COMMITTER = """
with Catalog.open(folder) as catalog:
    print("ready", flush=True)
    for position in range(int(sys.argv[2]), int(sys.argv[3]), 2):
        spool(catalog, 1, position, position + 1)
        commit(catalog, 1, position, position + 1)
        unspool(catalog, 1, position, position + 1)
"""

_READER_IN_A_TRANSACTION = """
with Catalog.open(folder) as catalog, catalog._catalog.read() as txn:
    print("ready", flush=True)
    time.sleep(60)
"""

_WRITER_IN_A_TRANSACTION = """
with Catalog.open(folder) as catalog, catalog.write() as writer:
    writer.commit_part(1, 0, header_key(1), 0, [part_row(1, 0)])
    print("ready", flush=True)
    time.sleep(60)
"""


def _start(script: str, folder: Path, *args: object) -> subprocess.Popen[str]:
    head = (
        "import sys, time\nfrom pathlib import Path\nfrom dicomfs.index import Catalog\n"
        "from tests.catalogs import commit, header_key, part_row, spool, unspool\n"
        "folder = Path(sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", head + script, str(folder), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_readers_see_each_instance_once_while_others_move_it(catalog: Catalog) -> None:
    writers = [_start(_COMMITTER, catalog.folder, 0, 60), _start(_COMMITTER, catalog.folder, 60, 120)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        positions = [row.id.position for row in catalog.rows(1)]
        assert len(positions) == len(set(positions))
        assert len(positions) >= seen
        counts = catalog.counts()
        assert counts.instances >= len(positions)
        seen = len(positions)
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(catalog.rows(1)) == 120
    assert catalog.counts() == catalog.recount()
    assert catalog.counts().spool_instances == 0


def test_a_killed_reader_is_cleared_away_and_stops_pinning_pages(catalog: Catalog) -> None:
    commit(catalog, 1, 0)
    assert catalog.reader_check() == 0
    _kill(_start(_READER_IN_A_TRANSACTION, catalog.folder))
    assert catalog.reader_check() >= 1
    assert catalog.reader_check() == 0
    assert len(catalog.rows(1)) == 1


def test_a_killed_writer_leaves_the_last_commit_and_the_next_writer_goes_on(catalog: Catalog) -> None:
    _kill(_start(_WRITER_IN_A_TRANSACTION, catalog.folder))
    assert catalog.rows(1) == []
    commit(catalog, 1, 0)
    assert len(catalog.rows(1)) == 1


def test_a_second_process_keeps_the_spools_list(tmp_path: Path) -> None:
    with make_catalog(tmp_path / "index") as catalog:
        spool(catalog, 1, 0)
        process = _start(_READER_IN_A_TRANSACTION, catalog.folder)
        assert not catalog.spool_stale
        assert len(catalog.rows(1)) == 1
        _kill(process)
