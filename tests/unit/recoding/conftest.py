"""An archive whose external tier holds packs in a profile of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.packing import repack
from tests.tiered import EXTERNAL, copy_all, three_tiers
from tests.twins import DENSE


@pytest.fixture(autouse=True)
def always_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small samples hardly gain from anything: code them anew all the same."""
    monkeypatch.setattr(repack, "LEAST_GAIN", -1e9)
    monkeypatch.setattr(repack, "_LEAST_HALVINGS", -1e9)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Packed fast; what goes to the external tier is to be dense."""
    with three_tiers(tmp_path, tiers=DENSE) as made:
        yield made


@pytest.fixture
def both(archive: Archive) -> Archive:
    """The same, all of it on the external tier, too."""
    copy_all(archive, EXTERNAL)
    return archive
