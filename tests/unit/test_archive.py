"""The archive as a whole: making, opening, counting."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import CatalogError, CatalogOutdated, ConfigError, DamagedError, TierError, UsageError
from tests import samples
from tests.archives import contents, digests, numbers, objects, rows, write_sources

FILES = [*samples.ct_series(3, 16, 16), samples.structured_report()]


def test_an_archive_is_made_once_and_opened_often(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "archive") as archive:
        archive_id = archive.archive_id
    with Archive.open(tmp_path / "archive") as one, Archive.open(tmp_path / "archive") as two:
        assert one.archive_id == two.archive_id == archive_id
    with pytest.raises(UsageError, match="not empty"):
        Archive.create(tmp_path / "archive")
    with pytest.raises(UsageError, match="init"):
        Archive.open(tmp_path / "elsewhere")


def test_who_opened_to_read_writes_nothing_and_goes_on_when_others_pack(
    tmp_path: Path,
) -> None:
    root = tmp_path / "archive"
    with Archive.create(root) as archive:
        archive.import_paths([write_sources(tmp_path / "in", FILES)])
    (root / "index" / "boot").write_text("another boot", encoding="ascii")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".mdb"}
    with Archive.open_to_read(root) as reading:
        assert contents(reading) == digests(FILES)
        assert before == {path: path.read_bytes() for path in before}
        with pytest.raises(CatalogError, match="to read only"):
            reading.pack()
        # Another process, because LMDB opens a file once in each.
        subprocess.run([sys.executable, "-m", "dicomfs", "-a", root, "pack"], check=True)
        assert contents(reading) == digests(FILES)


def test_everything_in_an_archive_is_for_its_owner_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with Archive.create(tmp_path / "archive") as archive:
            archive.import_paths([write_sources(tmp_path / "in", [*FILES, b"other"])], keep_others=True)
            archive.pack()
            archive.import_paths([write_sources(tmp_path / "more", samples.ct_series(2, 16, 16, 1))])
            assert archive.paths.root.stat().st_mode & 0o777 == 0o700
            for path in archive.paths.root.rglob("*"):
                # A mount shows this one, to its group as well; on disk nobody else gets below the root.
                assert path == archive.paths.incoming or path.stat().st_mode & 0o077 == 0, path
    finally:
        os.umask(umask)


def test_the_status_counts_what_is_there(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([write_sources(tmp_path / "in", FILES)])
        status = archive.status()
        size = sum(map(len, FILES))
        assert (status["patients"], status["studies"], status["series"], status["instances"]) == (1, 1, 2, 4)
        assert (status["logical_bytes"], status["spool"]) == (size, {"instances": 4, "bytes": size})
        archive.pack()
        status = archive.status()
        assert (status["logical_bytes"], status["spool"]) == (size, {"instances": 0, "bytes": 0})
        stored = sum(path.stat().st_size for path in objects(archive))
        assert status["stored_bytes"] == stored
        packs = [path for path in objects(archive) if path.parent.name != "journal"]
        size = sum(path.stat().st_size for path in packs)
        assert status["tiers"] == {"local": {"objects": len(packs), "bytes": size}}
        parts = [status[name] for name in ("pixel_bytes", "header_bytes", "opaque_bytes", "journal_bytes")]
        assert sum(int(str(part)) for part in parts) == stored
        total, free = archive.usage()
        assert 0 < free <= total


def test_two_imports_at_once_lose_nothing_and_number_nothing_twice(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    Archive.create(root).close()
    series = [samples.ct_series(6, 16, 16, seed, patient="Same^Patient") for seed in range(4)]
    folders = [write_sources(tmp_path / f"in{n}", [*files, *FILES]) for n, files in enumerate(series)]

    def run(folder: Path) -> None:
        with Archive.open(root) as mine:
            mine.import_paths([folder])
            mine.pack()

    threads = [threading.Thread(target=run, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Archive.open(root) as archive:
        assert contents(archive) == digests([data for files in series for data in files] + FILES)
        assert len(numbers(archive)) == len({row.id for _, row in rows(archive)}) == 24 + 4
        report = archive.verify(deep=True)
        assert (report.problems, report.notes) == ([], [])


def test_opening_while_another_thread_writes_stops_no_thread(tmp_path: Path) -> None:
    # In a process of its own: a defect here would stop every thread of this one.
    code = """
import sys, threading, time
from pathlib import Path
from dicomfs.archive import Archive
root = Path(sys.argv[1])
with Archive.create(root) as archive, archive.catalog.write():
    opener = threading.Thread(target=lambda: Archive.open(root).close())
    opener.start()
    while opener.is_alive() and opener.ident is None:
        time.sleep(0.01)
    time.sleep(0.2)
opener.join()
print("done")
"""
    command = [sys.executable, "-c", code, os.fspath(tmp_path / "archive")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "done\n"
    assert "Traceback" not in ran.stderr


def test_damaged_parts_of_an_archive_are_named(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    Archive.create(root).close()
    (root / "dicomfs.toml").write_text("[archive]\nminimum_free_bytes = 'much'\n")
    with pytest.raises(ConfigError, match="minimum_free_bytes"):
        Archive.open(root)
    (root / "dicomfs.toml").unlink()
    Archive.open(root).close()
    (root / "index" / "catalog" / "data.mdb").write_bytes(b"junk" * 1000)
    with pytest.raises(CatalogOutdated, match="recover"):
        Archive.open(root)
    (root / "archive.json").write_text("{")
    with pytest.raises(DamagedError, match="recover"):
        Archive.open(root)


def test_without_its_tier_an_archive_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    sources = write_sources(tmp_path / "in", FILES)
    with Archive.create(root) as archive:
        archive.paths.local_tier.rename(tmp_path / "unplugged")
        with pytest.raises(TierError):
            archive.import_paths([sources])
        assert rows(archive) == []
        (tmp_path / "unplugged").rename(archive.paths.local_tier)
        assert archive.import_paths([sources]).taken == 4
        archive.paths.local_tier.rename(tmp_path / "unplugged")
        with pytest.raises(TierError):
            archive.pack()
        assert contents(archive) == digests(FILES)
        (tmp_path / "unplugged").rename(archive.paths.local_tier)
        assert archive.pack().instances == 4
        assert contents(archive) == digests(FILES)


def test_a_tier_may_lie_elsewhere(tmp_path: Path) -> None:
    root, tier = tmp_path / "archive", tmp_path / "ti er"
    tier.mkdir()
    Archive.create(root).close()
    (root / "dicomfs.toml").write_text(f'[tiers.local]\nurl = "{tier.as_uri()}"\n')
    with Archive.open(root) as archive:
        archive.import_paths([write_sources(tmp_path / "in", FILES)])
        archive.pack()
        assert contents(archive) == digests(FILES)
        assert objects(archive) == []
        assert list((tier / "header").rglob("*"))
