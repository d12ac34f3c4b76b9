"""An archive whose external tier holds packs in a profile of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests.archives import let_everything_gain
from tests.tiered import EXTERNAL, copy_all, three_tiers
from tests.twins import DENSE


@pytest.fixture(autouse=True)
def always_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    let_everything_gain(monkeypatch)


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
