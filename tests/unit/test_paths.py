"""The archive folder and the document that names the archive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicomfs.errors import DamagedError, UnsupportedVersion, UsageError
from dicomfs.paths import ARCHIVE_VERSION, ArchivePaths, new_archive_id, read_identity, write_identity


def test_every_folder_of_a_new_archive_is_for_its_owner_only(tmp_path: Path) -> None:
    paths = ArchivePaths(tmp_path / "deep" / "archive")
    paths.make()
    assert {path.name for path in paths.root.iterdir()} == {"index", "spool", "staging", "run", "local"}
    for folder in (paths.root, *paths.root.iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_an_empty_folder_is_taken_and_closed_to_others_and_one_with_contents_refused(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir(mode=0o755)
    ArchivePaths(root).make()
    assert root.stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError, match="not empty"):
        ArchivePaths(root).make()


def test_a_place_where_no_folder_can_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(UsageError):
            ArchivePaths(place).make()


def test_the_identity_comes_back(tmp_path: Path) -> None:
    paths = ArchivePaths(tmp_path)
    archive_id = new_archive_id()
    assert len(archive_id) == 16
    assert archive_id != new_archive_id()
    write_identity(paths, archive_id)
    assert read_identity(paths) == archive_id
    assert [path.name for path in tmp_path.iterdir()] == ["archive.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"version": 1}',
        '{"version": 1, "id": "zz"}',
        '{"version": 1, "id": "00"}',
        '{"version": "one", "id": "00"}',
        '{"version": 1, "id": 5}',
        "9" * 5000,
        "[" * 100_000,
    ],
)
def test_a_damaged_document_is_named(tmp_path: Path, text: str) -> None:
    paths = ArchivePaths(tmp_path)
    paths.identity.write_text(text)
    with pytest.raises(DamagedError, match=r"archive\.json"):
        read_identity(paths)


def test_a_document_that_is_no_text_and_a_missing_one_are_usage_errors(tmp_path: Path) -> None:
    paths = ArchivePaths(tmp_path)
    with pytest.raises(UsageError, match="init"):
        read_identity(paths)
    paths.identity.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_identity(paths)


def test_an_archive_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    paths = ArchivePaths(tmp_path)
    paths.identity.write_text(json.dumps({"version": ARCHIVE_VERSION + 1, "id": "00" * 16}))
    with pytest.raises(UnsupportedVersion):
        read_identity(paths)
