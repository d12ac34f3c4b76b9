"""Small parts are packed again together: fewer parts, the same files, and no byte is packed often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import TierFull
from dicomfs.model import InstanceId
from dicomfs.packing import together
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from tests import samples
from tests.archives import (
    contents,
    digests,
    numbers,
    objects,
    read_whole,
    readable,
    rows,
    set_minimum_free,
    write_sources,
)

SLICES = samples.ct_series(20, 32, 32)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """A new archive; three deposits of a class are packed together."""
    monkeypatch.setattr(together, "DEPOSITS", 3)
    with Archive.create(tmp_path / "archive") as created:
        pass
    set_minimum_free(created.paths.root, 0)
    with Archive.open(created.paths.root) as opened:
        yield opened


def arrive(archive: Archive, tmp_path: Path, files: list[bytes], name: str = "in") -> int:
    """Each file by itself, packed at once; how many parts were packed again."""
    again = 0
    for number, data in enumerate(files):
        archive.import_paths([write_sources(tmp_path / f"{name}{number}", [data])])
        again += archive.pack().together
    return again


def parts(archive: Archive) -> int:
    return sum(len(archive.catalog.parts(number)) for number in {row.id.series for _, row in rows(archive)})


def check(archive: Archive, files: list[bytes]) -> None:
    assert contents(archive) == digests(files)
    found = archive.verify(deep=True)
    assert (found.problems, found.notes) == ([], [])
    assert list(archive.paths.staging.iterdir()) == []


def test_late_parts_become_one_and_leave_nothing_behind(archive: Archive, tmp_path: Path) -> None:
    arrive(archive, tmp_path, SLICES[:2])
    before = numbers(archive)
    assert parts(archive) == 2
    assert arrive(archive, tmp_path, SLICES[2:3], "late") == 3
    assert parts(archive) == 1
    assert len(objects(archive, "header")) == len(objects(archive, "pixel")) == 1
    assert before.items() <= numbers(archive).items()
    check(archive, SLICES[:3])


def test_what_was_packed_again_is_smaller_than_its_parts(archive: Archive, tmp_path: Path) -> None:
    arrive(archive, tmp_path, SLICES[:2])
    before = sum(path.stat().st_size for path in objects(archive, "header"))
    arrive(archive, tmp_path, SLICES[2:3], "late")
    assert sum(path.stat().st_size for path in objects(archive, "header")) < before


def test_no_byte_is_packed_again_more_often_than_there_are_classes(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "DEPOSITS", 2)
    monkeypatch.setattr(together, "CLASS_BITS", 1)
    packed: dict[InstanceId, int] = {}
    files = together.Gathering.files

    def counted(self: together.Gathering, staged: together.StagedFiles) -> object:
        found = files(self, staged)
        for record in (record for _, records in found for record in records):
            packed[record.id] = packed.get(record.id, 0) + 1
        return found

    monkeypatch.setattr(together.Gathering, "files", counted)
    arrive(archive, tmp_path, SLICES[:8])
    assert (parts(archive), max(packed.values())) == (1, 3)
    check(archive, SLICES[:8])


def test_parts_that_cannot_be_packed_again_stay_and_stop_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late slice of another series of the study is packed all the same."""

    def fail(*_: object) -> None:
        raise TierFull("staging", "file", "cannot be written")

    arrive(archive, tmp_path, SLICES[:2])
    monkeypatch.setattr(together.Gathering, "files", fail)
    assert arrive(archive, tmp_path, SLICES[2:3], "late") == 0
    other = samples.ct_series(1, 16, 16, 4)
    assert arrive(archive, tmp_path, other, "other") == 0
    assert parts(archive) == 4
    check(archive, [*SLICES[:3], *other])


def test_large_parts_stay_as_they_are(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "LARGEST_BYTES", 1000)
    assert arrive(archive, tmp_path, SLICES[:3]) == 0
    assert parts(archive) == 3


def test_readers_that_were_open_go_on(archive: Archive, tmp_path: Path) -> None:
    arrive(archive, tmp_path, SLICES[:2])
    with Archive.open(archive.paths.root) as other:
        listed = rows(other)
        readers = [other.reconstructor.open(row.id) for _, row in listed]
        places = {row.id: other.catalog.part_of(row.id) for _, row in listed}
        arrive(archive, tmp_path, SLICES[2:3], "late")
        assert {reader.read(0, reader.size) for reader in readers} == set(SLICES[:2])
        assert {read_whole(other, row.id) for _, row in rows(other)} == set(SLICES[:3])
        assert all(other.catalog.part_of(one) != place for one, place in places.items())


def test_packs_that_others_need_stay(archive: Archive, tmp_path: Path) -> None:
    """The same pixels in another study, found in the parts that go; and a header pack of two studies."""
    twin = samples.ct_series(1, 32, 32, patient="Another^Patient")[0]
    archive.import_paths([write_sources(tmp_path / "both", [SLICES[0], _other_study()])])
    archive.pack()
    arrive(archive, tmp_path, SLICES[1:2])
    archive.import_paths([write_sources(tmp_path / "twin", [twin])])
    archive.pack()
    assert arrive(archive, tmp_path, SLICES[2:3], "late") == 3
    files = [*SLICES[:3], twin, _other_study()]
    check(archive, files)
    # The header pack of two studies keeps one of them, the pack with the twin's pixels keeps those.
    assert (len(objects(archive, "header")), len(objects(archive, "pixel"))) == (3, 3)
    archive.close()
    assert (
        recover(archive.paths.root, archive.paths.local_tier.as_uri(), progress=NullProgress()).problems == []
    )
    with Archive.open(archive.paths.root) as again:
        check(again, files)


def test_recover_finds_the_same_before_and_after_the_old_parts_are_deleted(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = archive.paths.root
    arrive(archive, tmp_path, SLICES[:2])
    old = {path: path.read_bytes() for path in objects(archive)}
    arrive(archive, tmp_path, SLICES[2:3], "late")
    before = numbers(archive)
    archive.close()
    for path, data in old.items():
        if not path.exists():
            path.write_bytes(data)
    assert recover(root, (root / "local").as_uri(), progress=NullProgress()).problems == []
    with Archive.open(root) as again:
        assert numbers(again) == before
        assert parts(again) == 1
        assert contents(again) == digests(SLICES[:3])
        assert again.verify(deep=True).problems == []
    new = [path for path in objects(again, "pixel") if path not in old]
    new[0].unlink()
    assert recover(root, (root / "local").as_uri(), progress=NullProgress()).problems != []
    with Archive.open(root) as again:
        # All but the slice that is in no older part; the problem names it.
        assert readable(again) == (digests(SLICES[:2]), 0)


def _other_study() -> bytes:
    return samples.ct_series(1, 32, 32, 9, patient="Second^Patient")[0]
