"""Fixtures that every test may use: where the real data lies, if it is there at all, and S3 servers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.log import JsonFormatter, KeyValueFormatter
from tests.s3.ceph import Ceph, running_ceph
from tests.s3.servers import BUCKET, Server, running_moto

REAL_DATA_VARIABLE = "DICOMFS_REAL_DATA"
CHECKOUT = Path(__file__).resolve().parent.parent


def find_real_data() -> Path | None:
    """The folder with ``series/`` and ``odd/``: from the environment, else beside the checkout."""
    named = os.environ.get(REAL_DATA_VARIABLE)
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    return folder if (folder / "series").is_dir() else None


def real_files(*parts: str, every: int = 1) -> list[Path]:
    """Files below these folders of the real data, sorted, each ``every``-th; [] where the data is absent."""
    root = find_real_data()
    if root is None:
        return []
    return sorted(path for part in parts for path in (root / part).rglob("*") if path.is_file())[::every]


def pytest_report_header() -> list[str]:
    """Say loudly what this session cannot test."""
    root = find_real_data()
    if root is not None:
        return [f"real data: {root}"]
    return [
        "*" * 78,
        f"WARNING: NO REAL DATA: no series/ in ${REAL_DATA_VARIABLE} nor in ../shared/data;",
        "WARNING: tests on real files run on none; only synthetic files are tested.",
        "*" * 78,
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose list of real files is empty: the header has said so, nothing is skipped."""
    empty = [item for item in items if any(map(_is_empty_set, item.iter_markers("skip")))]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def _is_empty_set(mark: pytest.Mark) -> bool:
    return str(mark.kwargs.get("reason", "")).startswith("got empty parameter set")


@pytest.fixture(scope="session")
def tiered_archives() -> dict[bool, Path]:
    """Two patients, packed and copied to the laboratory in plain bytes (True) or encrypted; to be copied."""
    from tests.tiered import on_both_tiers

    return {plain: on_both_tiers(plain=plain) for plain in (True, False)}


@pytest.fixture(autouse=True)
def _logging_of_one_test_only() -> Iterator[None]:
    """Take back what a command that ran in this process set up: its stream is closed when the test ends."""
    root, own = logging.getLogger(), logging.getLogger("dicomfs")
    levels = root.level, own.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, KeyValueFormatter | JsonFormatter):
            root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])


@pytest.fixture(scope="session")
def real_data() -> Path | None:
    """Root of the real data, or None."""
    return find_real_data()


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """An S3 server that knows cold classes and object lock, and checks neither secrets nor checksums."""
    with running_moto() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_cluster() -> Iterator[Ceph]:
    """A Ceph cluster, whose gateway may be stopped and started."""
    with running_ceph() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ceph(ceph_cluster: Ceph) -> Server:
    """A real S3 server: Ceph's RADOS gateway."""
    server = Server(ceph_cluster.environment)
    server.client().create_bucket(Bucket=BUCKET)
    return server
