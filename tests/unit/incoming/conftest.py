"""An archive with a client, on a disk that is never short of space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests import samples
from tests.clients import Client


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """A new archive; files count as quiet at once."""
    with Archive.create(tmp_path / "archive") as created:
        pass
    settings = "[pack]\nquiet_seconds = 0\n[archive]\nminimum_free_bytes = 0\n"
    (tmp_path / "archive" / "dicomfs.toml").write_text(settings)
    with Archive.open(created.paths.root) as opened:
        yield opened


@pytest.fixture
def client(archive: Archive) -> Iterator[Client]:
    """A client; nobody looks after quiet files unless the test says so."""
    made = Client(archive)
    yield made
    made.close()


@pytest.fixture
def slices() -> list[bytes]:
    """A CT series of three."""
    return samples.ct_series(3)
