"""Planning: batches of bounded size, stacks of one kind, orders worth a trial."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.model import PackKind
from dicomfs.packing import plan
from dicomfs.packing.plan import FrameRef, batches, orders, plan_batch
from tests import samples
from tests.archives import write_sources


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        files = [*samples.ct_series(5, 8, 8), *samples.ct_series(4, 12, 8, 1), samples.enhanced_mr(4, 8, 8)]
        files += [samples.structured_report(), samples.encapsulated([b"\xff\xd8\xff\xd9"])]
        created.import_paths([write_sources(tmp_path / "in", files)])
        yield created


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_batches_hold_everything_once_in_name_order_and_keep_their_bound(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(plan, "BATCH_INSTANCES", limit)
    seen = []
    for group in batches(archive.catalog):
        assert 0 < sum(len(records) for _, records in group) <= limit
        for series, records in group:
            assert {record.id.series for record in records} == {series}
            assert [r.number or 0 for r in records] == sorted(r.number or 0 for r in records)
            seen += [record.id for record in records]
    assert len(seen) == len(set(seen)) == 12


def test_a_batch_ends_before_its_bytes_are_exceeded(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH_BYTES", 3000)
    groups = list(batches(archive.catalog))
    sizes = [[record.size for _, records in group for record in records] for group in groups]
    assert all(sum(found) <= 3000 or len(found) == 1 for found in sizes)
    assert sum(map(len, sizes)) == 12


def test_every_frame_is_in_one_stack_of_its_layout_and_runs_cover_the_file(archive: Archive) -> None:
    (group,) = batches(archive.catalog)
    found = plan_batch(archive.catalog, archive.spool, group, {})
    assert len(found.instances) == 12
    for instance in found.instances:
        at = 0
        for run in instance.split.runs:
            assert run.offset == at
            at += run.length
        assert at == instance.record.size
    assert sorted(len(stack.frames) for stack in found.stacks) == [4, 4, 5]
    assert {stack.kind for stack in found.stacks} == {PackKind.PIXEL}
    for stack in found.stacks:
        for frame in stack.frames:
            assert found.instances[frame.instance].split.layout == stack.layout
    assert found.raw_bytes == sum(instance.record.size for instance in found.instances)


def test_what_is_to_be_whole_is_one_stream_with_the_reason(archive: Archive) -> None:
    (group,) = batches(archive.catalog)
    victim = group[0][1][0].id
    found = plan_batch(archive.catalog, archive.spool, group, {victim: "because"})
    (instance,) = [one for one in found.instances if one.record.id == victim]
    assert (instance.split.reason, len(instance.split.runs), instance.stack) == ("because", 1, None)
    assert instance.split.runs[0].length == instance.record.size


def frame(index: int, position: float | None, time: float | None = None) -> FrameRef:
    return FrameRef(index, 0, 0, position, time, index)


def test_frames_without_positions_stay_in_name_order() -> None:
    frames = [frame(index, None if index == 3 else float(-index)) for index in range(6)]
    random.Random(1).shuffle(frames)
    (only,) = orders(frames)
    assert [one.instance for one in only] == list(range(6))


def test_one_frame_per_position_is_ordered_along_the_slices() -> None:
    frames = [frame(index, float(index * 7 % 5)) for index in range(5)]
    (only,) = orders(frames)
    assert [one.position for one in only] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_repeated_positions_give_both_orders_unless_they_agree() -> None:
    by_time = [frame(time * 3 + place, float(place), float(time)) for time in range(2) for place in range(3)]
    named, placed = orders(by_time)
    assert [one.instance for one in named] == list(range(6))
    assert [one.instance for one in placed] == [0, 3, 1, 4, 2, 5]
    assert len(orders([frame(index, float(index // 2), float(index % 2)) for index in range(6)])) == 1
