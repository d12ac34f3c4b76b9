"""Building and sealing a batch: where pieces go, and that a difference is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomfs.accept import number_marks
from dicomfs.archive import Archive
from dicomfs.codec.trial import Profile
from dicomfs.errors import TierFull
from dicomfs.format.pack import PackWriter
from dicomfs.model import FramePiece, PackKind
from dicomfs.packing.build import BuiltBatch, build_batch, progressions
from dicomfs.packing.commit import part_rows
from dicomfs.packing.encode import StackEncoder
from dicomfs.packing.plan import BatchPlan, batches, plan_batch
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import SPOOL_ROTTEN, Staging, clear_staging, mismatches
from dicomfs.packing.texts import BatchTexts
from dicomfs.packs import PackSource
from dicomfs.progress import NullProgress
from tests import samples
from tests.archives import flip, write_sources

Build = Callable[[], tuple[BatchPlan, BuiltBatch, Callable[[], dict[int, str]]]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        files = [*samples.ct_series(5, 8, 8), samples.enhanced_mr(6, 8, 8), samples.structured_report()]
        created.import_paths([write_sources(tmp_path / "in", files)])
        yield created


@pytest.fixture
def build(archive: Archive) -> Iterator[Build]:
    with ThreadPoolExecutor(2) as pool:

        def built() -> tuple[BatchPlan, BuiltBatch, Callable[[], dict[int, str]]]:
            (group,) = batches(archive.catalog)
            plan = plan_batch(archive.catalog, archive.spool, group, {})
            staging = Staging(archive.paths.staging, archive.archive_id)
            run = PackRun(pool, 2, Profile.FAST, 1 << 30, NullProgress())
            encoder = StackEncoder(plan, run)
            marks = number_marks(archive.catalog)
            advanced: list[int] = []
            texts = BatchTexts(lambda _: [], PackSource(archive.tier), staging)
            part, advance = archive.catalog.next_part, advanced.append
            batch = build_batch(plan, staging, encoder, part, marks, advance, texts)
            assert sum(advanced) == plan.raw_bytes
            headers = batch.headers
            assert headers is not None

            def check() -> dict[int, str]:
                return mismatches(
                    archive.tier,
                    batch.packs,
                    headers,
                    plan,
                    list(enumerate(batch.rows)),
                    run,
                    archive.catalog.placed,
                )

            return plan, batch, check

        yield built


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ([], []),
        ([5], [(5, 1, 1)]),
        ([0, 1, 2, 3], [(0, 4, 1)]),
        ([9, 6, 3, 0], [(9, 4, -3)]),
        ([1, 2, 4, 6, 7], [(1, 2, 1), (4, 2, 2), (7, 1, 1)]),
        ([3, 3, 3], [(3, 3, 0)]),
    ],
)
def test_progressions_cover_the_numbers(numbers: list[int], expected: list[tuple[int, int, int]]) -> None:
    found = list(progressions(numbers))
    assert found == expected
    assert [first + n * step for first, count, step in found for n in range(count)] == numbers


def test_a_sound_batch_has_no_mismatch_and_refers_to_its_packs_only(build: Build) -> None:
    _, batch, check = build()
    assert check() == {}
    keys = {pack.key for pack in batch.packs}
    pieces = [piece for part in batch.parts for entry in part.entries for piece in entry.pieces]
    assert {piece.pack for piece in pieces if isinstance(piece, FramePiece)} == keys
    for part in batch.parts:
        for row, entry in zip(part_rows(part), part.entries, strict=True):
            assert (row.position, row.size, row.sha256) == (entry.position, entry.size, entry.sha256)


def test_a_bit_that_flips_on_the_device_is_found_before_anything_is_released(build: Build) -> None:
    _, batch, check = build()
    for pack in batch.packs:
        # Within the first payload: the index is at the end.
        flip(pack.path, pack.summary.size // 4)
    assert check()


@pytest.mark.parametrize("offset", [-20, 300])
def test_a_spooled_file_that_rotted_before_it_was_packed_is_told_apart(
    archive: Archive, build: Build, offset: int
) -> None:
    victim = next(iter(archive.spool.files()))
    flip(victim.path, offset)
    plan, _, check = build()
    (found,) = check().items()
    assert plan.instances[found[0]].record.id == victim.id
    assert found[1] == SPOOL_ROTTEN


def test_staged_packs_are_for_their_owner_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        staged = Staging(tmp_path, bytes(16)).write_pack(PackKind.PIXEL, lambda _: None)
    finally:
        os.umask(umask)
    assert staged.path.stat().st_mode & 0o077 == 0


def test_a_stage_that_cannot_be_written_is_full_and_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    staging = Staging(folder, bytes(16))

    def fill(_: PackWriter) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(TierFull, match="No space"):
        staging.write_pack(PackKind.PIXEL, fill)
    (folder / "of one that died").write_bytes(b"")
    staging.clear()
    assert [path.name for path in folder.iterdir()] == ["of one that died"]
    clear_staging(folder)
    assert list(folder.iterdir()) == []
