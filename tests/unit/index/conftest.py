"""A small catalog for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.index import Catalog
from tests.catalogs import make_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with make_catalog(tmp_path / "index") as made:
        yield made
