"""Recovery from a snapshot and from packs alone give the same index, whatever happened before and after."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.archive import Archive
from dicomfs.errors import UsageError
from dicomfs.index.catalog import Catalog
from dicomfs.model import Level, Subject
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from tests import samples
from tests.archives import index_contents, rows, write_sources
from tests.tiered import LABORATORY, copied, copy_all, evict_all

_OTHERS = [
    *samples.ct_series(2, 12, 12, 1, patient="Third^Patient"),
    *samples.ct_series(3, 12, 12, 2, patient="Fourth^Patient"),
]
_YEAR_NS = 366 * 86400 * 10**9


def _accept(archive: Archive, number: int) -> None:
    # What is there already, some new files, and one with a known UID and other attributes.
    changed = _OTHERS[number % len(_OTHERS)].replace(b"Head routine", b"Head Routine")
    folder = Path(tempfile.mkdtemp(dir=archive.paths.root.parent))
    archive.import_paths([write_sources(folder / "in", [*_OTHERS[: 1 + number], changed])])


def _forget(archive: Archive, number: int) -> None:
    known = rows(archive)
    with contextlib.suppress(UsageError):
        archive.decisions().forget([known[number % len(known)][1].id], "")


STEPS: dict[str, Callable[[Archive, int], object]] = {
    "accept": _accept,
    "pack": lambda archive, _: archive.pack(),
    "repack": lambda archive, number: archive.repack(("dense", "archive", "fast")[number % 3]),
    "forget": _forget,
    "hold": lambda archive, number: archive.decisions().hold([Subject(Level.SERIES, 1 + number, 0)], ""),
    "pin": lambda archive, number: archive.pins.pin([1 + number % 2]),
    "gc": lambda archive, _: archive.collector().collect(now_ns=2 * _YEAR_NS),
    "purge": lambda archive, _: archive.purger().purge(),
    "snapshot": lambda archive, _: archive.snapshots().make(NullProgress()),
    "copy": lambda archive, _: copy_all(archive),
    "evict": lambda archive, _: evict_all(archive),
}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 4)), max_size=8), st.integers(0, 8))
def test_with_and_without_a_snapshot_the_same_comes_back(steps: list[tuple[str, int]], place: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        with copied(root) as archive:
            for name, number in [*steps[:place], ("snapshot", 0), *steps[place:]]:
                STEPS[name](archive, number)
            copy_all(archive)
        url = (root / LABORATORY).as_uri()
        with_it, without = recover(root / "one", url), recover(root / "other", url, from_packs=True)
        assert with_it.snapshot != ""
        assert (with_it.problems, with_it.notes) == (without.problems, without.notes)
        with Catalog.open(root / "one" / "index") as one, Catalog.open(root / "other" / "index") as other:
            assert index_contents(one) == index_contents(other)
