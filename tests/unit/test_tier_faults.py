"""Every fault at every call to a folder tier, and at some of every kind of call to an encrypted one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.tiers.folder import FolderTier
from tests.archives import flip
from tests.fault_table import FAULTS, KINDS, OPERATIONS, calls_of, harm, install, make_starts, some
from tests.tiered import LABORATORY, copy_of, two_tiers

_POSITIONS = 1
"""Calls of an encrypted tier that are harmed, of each fault and operation: there are some hundred."""


class Folders:
    """Archives with a folder as their laboratory."""

    def __init__(self, base: Path, *, plain: bool) -> None:
        self._base, self.plain = base, plain

    def make(self) -> Path:
        two_tiers(self._base, plain=self.plain, retry_seconds=0).close()
        return self._base

    def copy(self, start: Path, to: Path) -> Archive:
        return copy_of(start, to)

    def damage(self, folder: Path) -> None:
        for kind in ("pixel", "burned", "opaque", "header"):
            for path in (folder / LABORATORY / kind).glob("*/*"):
                flip(path, 60)


@pytest.fixture(autouse=True)
def harmed(place: Folders, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(FolderTier, monkeypatch, plain=place.plain)
    yield
    FAULTS.__init__()  # type: ignore[misc]


@pytest.fixture(scope="module", params=[True, False], ids=["plain", "encrypted"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("base"), plain=request.param)


@pytest.fixture(scope="module")
def starts(place: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_starts(place, lambda: tmp_path_factory.mktemp("start"))


@pytest.fixture
def workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dicomfs-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_loses_nothing(
    place: Folders,
    starts: dict[str, Path],
    workplace: Path,
    operation: str,
    kind: str,
) -> None:
    start = starts[operation]
    problems = []
    calls = calls_of(place, start, workplace / "dry", operation)
    assert calls, "nothing is asked of the tier"
    due = [at for at, call in enumerate(calls) if call in KINDS[kind]]
    if not place.plain:
        due = some(due, list(KINDS).index(kind) * 5 + list(OPERATIONS).index(operation), _POSITIONS)
    for at in due:
        top = workplace / str(at)
        problems += [f"{calls[at]} {at}: {p}" for p in harm(place, start, top, operation, kind, at)]
        shutil.rmtree(top)
    assert not problems, "\n".join(problems)
