"""When objects were last read: noted by readers, written in batches, harmless to lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs import use_notes
from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull
from dicomfs.model import ObjectKey
from dicomfs.use_notes import UseNotes
from tests.archives import contents, rows
from tests.tiered import three_tiers


def test_what_a_mount_reads_is_noted(tmp_path: Path) -> None:
    with three_tiers(tmp_path) as archive:
        archive.promote_what_is_read()
        first = next(row.id for _, row in rows(archive) if len(archive.residency.objects(row.id)) > 1)
        needed = set(archive.residency.objects(first))
        archive.reconstructor.open(first).read(0, 1 << 20)
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.catalog.used().keys() == needed
        contents(archive)
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.catalog.used().keys() == needed


def test_notes_are_written_in_batches_and_newer_ones_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_notes, "_AT_ONCE", 2)
    with three_tiers(tmp_path) as archive:
        keys = [record.key for record in archive.catalog.objects()]
        times = iter(range(1, 100))
        notes = UseNotes(archive.catalog, lambda: next(times))
        for key in (*keys, keys[0], ObjectKey("pixel/00/" + "0" * 64)):
            notes.note(key)
        notes.write()
        expected = {key: order for order, key in enumerate(keys, 1)} | {keys[0]: len(keys) + 1}
        assert archive.catalog.used() == expected


def test_what_cannot_be_written_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with three_tiers(tmp_path) as archive:
        notes = UseNotes(archive.catalog)
        notes.note(next(archive.catalog.objects()).key)

        def full() -> None:
            raise CatalogFull("full")

        monkeypatch.setattr(archive.catalog, "write", full)
        notes.stop()
        assert "was not noted: full" in caplog.text
        notes.write()
        assert archive.catalog.used() == {}
