"""Readers of single instances: what they say of how they are stored, and spooled files that fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DamagedError, TierError
from dicomfs.reconstruct import PackedReader, SpooledReader
from tests import samples
from tests.archives import rows, write_sources

TAIL = bytes(3 << 20)
"""Bytes behind a report that nothing explains: kept as a stream, and easily compressed."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        created.import_paths([write_sources(tmp_path / "sources", [samples.structured_report() + TAIL])])
        yield created


@pytest.fixture
def spooled(archive: Archive) -> Iterator[SpooledReader]:
    reader = archive.reconstructor.open(rows(archive)[0][1].id)
    assert isinstance(reader, SpooledReader)
    yield reader
    reader.close()


def test_a_spooled_file_reads_as_a_slice_does(spooled: SpooledReader) -> None:
    data = samples.structured_report() + TAIL
    for offset, length in (
        (0, 5),
        (7, 1 << 20),
        (len(data) - 3, 9),
        (len(data), 1),
        (len(data) + 5, 5),
        (3, 0),
    ):
        assert spooled.read(offset, length) == data[offset : offset + length]


def test_a_spooled_file_that_was_cut_while_open_is_damage_and_no_shorter_file(
    archive: Archive, spooled: SpooledReader
) -> None:
    os.truncate(next(archive.spool.files()).path, 1000)
    assert len(spooled.read(0, 1000)) == 1000
    with pytest.raises(DamagedError, match="cut off"):
        spooled.read(900, 4096)
    assert spooled.read(spooled.size, 4096) == b""


def test_a_spooled_file_that_cannot_be_read_is_a_failing_tier(
    archive: Archive, spooled: SpooledReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("dicomfs.reconstruct.os.pread", fail)
    monkeypatch.setattr("dicomfs.reconstruct.os.open", fail)
    with pytest.raises(TierError, match="Input/output error"):
        spooled.read(0, 10)
    with pytest.raises(TierError, match="Input/output error"):
        archive.reconstructor.open(rows(archive)[0][1].id)


def test_a_stream_is_said_to_take_what_its_chunks_take(archive: Archive) -> None:
    archive.pack()
    reader = archive.reconstructor.open(rows(archive)[0][1].id)
    assert isinstance(reader, PackedReader)
    stored = reader.info()["stored_bytes"]
    assert isinstance(stored, int)
    assert 0 < stored < len(TAIL) // 10
