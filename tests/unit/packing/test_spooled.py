"""Reading spooled files: whole, in ranges, and what a disk that fails does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomfs.archive import Archive
from dicomfs.packing import spooled
from dicomfs.packing.spooled import SpooledRanges, UnreadableFile, file_bytes, spooled_bytes
from tests import samples
from tests.archives import contents, digests, write_sources


@pytest.mark.parametrize("in_memory", [0, 1 << 20], ids=["mapped", "in memory"])
@pytest.mark.parametrize("content", [b"", b"bytes", bytes(range(256)) * 300], ids=["none", "few", "many"])
def test_a_file_is_read_whole_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, in_memory: int
) -> None:
    monkeypatch.setattr(spooled, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(spooled, "_STEP", 1000)
    (tmp_path / "file").write_bytes(content)
    with spooled_bytes(tmp_path / "file") as data:
        assert len(data) == len(content)
        assert data[:] == content


def test_ranges_are_read_into_arrays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    target = np.zeros((2, 10), np.uint8)
    with SpooledRanges(tmp_path / "file") as ranges:
        ranges.into(target[1], 150)
        assert target[1].tobytes() == bytes(range(150, 160))
        assert not target[0].any()
        with pytest.raises(UnreadableFile, match="shorter"):
            ranges.into(target[0], 195)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=f"spool/{tmp_path.name}/gone: cannot be read: No such file"):
        SpooledRanges(tmp_path / "gone")
    with pytest.raises(UnreadableFile, match="gone"), spooled_bytes(tmp_path / "gone"):
        pass
    with pytest.raises(FileNotFoundError), file_bytes(tmp_path / "gone"):
        pass


def test_an_error_of_the_reader_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    with pytest.raises(OSError, match="mine"), spooled_bytes(tmp_path / "file"):
        raise OSError("mine")


@pytest.mark.parametrize("where", ["its header", "its pixels"])
def test_a_bad_sector_keeps_one_file_waiting_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    files = samples.ct_series(6, 16, 16)
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([write_sources(tmp_path / "in", files)])
        victim = [file.path for file in archive.spool.files()][2]
        call = "pread" if where == "its header" else "preadv"
        real = getattr(os, call)

        def failing(descriptor: int, *arguments: Any) -> Any:
            if Path(f"/proc/self/fd/{descriptor}").readlink() == victim:
                raise OSError(5, "Input/output error")
            return real(descriptor, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing)
            report = archive.pack()
        assert (report.instances, len(report.failed)) == (5, 1)
        assert victim.name in report.failed[0][1]
        assert "Input/output error" in report.failed[0][1]
        assert [file.path for file in archive.spool.files()] == [victim]
        assert archive.pack().instances == 1
        assert contents(archive) == digests(files)
