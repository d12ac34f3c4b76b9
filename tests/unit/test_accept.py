"""Accepting: conflicts end to end, stable names and numbers, batches that fail half way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicomfs.accept import NUMBER_BLOCK
from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull, TierFull
from dicomfs.index.catalog import Catalog
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal
from dicomfs.model import ConflictClass
from dicomfs.recovery import recover as recover_archive
from dicomfs.spool import Spool
from tests import samples
from tests.archives import (
    contents,
    digests,
    flip,
    node_numbers,
    numbers,
    objects,
    read_whole,
    rows,
    tree,
    write_sources,
)
from tests.conftest import real_files

(FIRST,) = samples.ct_series(1, 16, 16)
ENCODED = samples.ct_series(1, 16, 16, syntax=samples.IMPLICIT)[0]
RENAMED = FIRST.replace(b"Head routine", b"Head Routine")
TRUNCATED = FIRST[:-100]
HEAD = FIRST[: FIRST.rindex(b"\xe0\x7f\x10\x00")]
"""Ends before the pixel value, where an element ends."""
OTHER_PIXELS = FIRST[:-100] + bytes(100)

REAL_SERIES = (
    "series/mr_siemens_xa_enh_native",
    "series/pt_idc_philips_singles",
    "series/pt_idc_ge_singles",
    "series/xa_rubo_cine_jpegbaseline",
    "series/us_vivid_e95_cine_jpegxl",
)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


def take(archive: Archive, folder: Path, *files: bytes) -> None:
    """Import files one after the other."""
    for number, data in enumerate(files):
        place = folder / f"take{len(list(folder.iterdir()))}"
        report = archive.import_paths([write_sources(place, {f"{number}": data})])
        assert report.not_taken == []


def versions(archive: Archive) -> dict[int, tuple[bytes, ConflictClass]]:
    """Version -> bytes and class, of the one name that an archive has."""
    found = rows(archive)
    assert len({place[:4] for place, _ in found}) == 1
    return {row.version: (read_whole(archive, row.id), row.conflict) for _, row in found}


CONFLICTS = [
    # first, second, class, whether the second is shown
    pytest.param(FIRST, RENAMED, ConflictClass.ATTRIBUTES, True, id="other attributes: the newer"),
    pytest.param(RENAMED, FIRST, ConflictClass.ATTRIBUTES, True, id="and the other way round"),
    pytest.param(FIRST, ENCODED, ConflictClass.ENCODING, True, id="other encoding: the newer"),
    pytest.param(FIRST, OTHER_PIXELS, ConflictClass.PIXELS, False, id="other pixels: the first"),
    pytest.param(OTHER_PIXELS, FIRST, ConflictClass.PIXELS, False, id="other pixels, reversed: the first"),
    pytest.param(FIRST, TRUNCATED, ConflictClass.TRUNCATED, False, id="a truncated one after it: the whole"),
    pytest.param(TRUNCATED, FIRST, ConflictClass.TRUNCATED, True, id="a truncated one before: the whole"),
    pytest.param(HEAD, FIRST, ConflictClass.TRUNCATED, True, id="one without pixels before: the longer"),
    pytest.param(FIRST, HEAD, ConflictClass.TRUNCATED, False, id="one without pixels after it: the longer"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["both spooled", "the first packed"])
@pytest.mark.parametrize("first, second, conflict, newer", CONFLICTS)
def test_of_two_versions_the_right_one_is_shown_and_both_are_kept(
    archive: Archive,
    tmp_path: Path,
    first: bytes,
    second: bytes,
    conflict: ConflictClass,
    newer: bool,
    packed: bool,
) -> None:
    take(archive, tmp_path, first)
    ((place, _),) = rows(archive)
    if packed:
        archive.pack()
    take(archive, tmp_path, second)
    shown, kept = (second, first) if newer else (first, second)
    expected = {0: (shown, ConflictClass.NONE), 1: (kept, conflict)}
    assert versions(archive) == expected
    assert tree(archive).keys() == {place, (*place[:4], 1)}
    before = numbers(archive)
    archive.pack()
    assert versions(archive) == expected
    assert numbers(archive) == before
    archive.close()
    recover_archive(archive.paths.root, archive.paths.local_tier.as_uri())
    with Archive.open(archive.paths.root) as recovered:
        assert versions(recovered) == expected
        assert numbers(recovered) == before


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_order_of_arrival_no_version_is_lost(
    archive: Archive, tmp_path: Path, seed: int
) -> None:
    files = [FIRST, ENCODED, RENAMED, TRUNCATED, OTHER_PIXELS]
    random.Random(seed).shuffle(files)
    for number, data in enumerate(files):
        take(archive, tmp_path, data)
        if number % 2:
            archive.pack()
    found = versions(archive)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert {data for data, _ in found.values()} == set(files)
    assert found[0][0] not in {TRUNCATED}
    take(archive, tmp_path, *files)
    assert versions(archive) == found


def test_versions_that_arrive_together_are_all_kept_in_order_of_their_times(
    archive: Archive, tmp_path: Path
) -> None:
    report = archive.import_paths([write_sources(tmp_path / "in", [FIRST, RENAMED, ENCODED])])
    assert (report.taken, report.conflicts) == (3, 2)
    found = versions(archive)
    assert {data for data, _ in found.values()} == {FIRST, RENAMED, ENCODED}
    assert found[0][0] == ENCODED


def test_many_versions_that_arrive_together_are_decided_together(archive: Archive, tmp_path: Path) -> None:
    first = samples.ct_series(8, 8, 8)
    second = [data.replace(b"Head routine", b"Head Routine") for data in first]
    report = archive.import_paths([write_sources(tmp_path / "in", [*first, *second])])
    assert (report.taken, report.conflicts) == (16, 8)
    assert contents(archive) == digests([*first, *second])
    # The numbers of three levels are reserved; then the folders, then all decisions at once.
    assert len(objects(archive, "journal")) == 5


def test_one_uid_in_another_series_is_a_version_there(archive: Archive, tmp_path: Path) -> None:
    elsewhere = FIRST.replace(
        samples.LITTLE.element(0x0020000E, "UI", samples.uid("Sample^Patient", 0)),
        samples.LITTLE.element(0x0020000E, "UI", samples.uid("Sample^Patient", "moved")),
    )
    assert elsewhere != FIRST
    take(archive, tmp_path, FIRST, elsewhere)
    found = {place: row for place, row in rows(archive)}
    assert len({place[2] for place in found}) == 2
    assert sorted(place[4] for place in found) == [0, 1]
    shown = next(row for place, row in found.items() if place[4] == 0)
    assert read_whole(archive, shown.id) == elsewhere
    archive.pack()
    assert contents(archive) == digests([FIRST, elsewhere])


def test_one_uid_of_another_patient_is_kept_under_that_patient(archive: Archive, tmp_path: Path) -> None:
    other = FIRST.replace(b"Sample^Patient", b"Wrong^Patient ")
    take(archive, tmp_path, FIRST, other)
    places = {place for place, _ in rows(archive)}
    assert len({place[0] for place in places}) == 2
    assert sorted(place[4] for place in places) == [0, 1]
    assert contents(archive) == digests([FIRST, other])
    archive.pack()
    assert contents(archive) == digests([FIRST, other])


def test_a_damaged_instance_is_replaced_by_its_own_bytes_when_they_are_imported_again(
    archive: Archive, tmp_path: Path
) -> None:
    sources = write_sources(tmp_path / "in", samples.ct_series(3, 16, 16))
    archive.import_paths([sources])
    archive.pack()
    (header,) = objects(archive, "header")
    header.unlink()
    with Archive.open(archive.paths.root) as fresh:
        report = fresh.import_paths([sources])
        assert (report.taken, report.conflicts, report.not_taken) == (3, 3, [])
        shown = [read_whole(fresh, row.id) for place, row in rows(fresh) if place[4] == 0]
        assert sorted(shown) == sorted(path.read_bytes() for path in sources.iterdir())


def test_a_new_version_of_a_damaged_instance_is_taken_and_shown(archive: Archive, tmp_path: Path) -> None:
    take(archive, tmp_path, FIRST)
    archive.pack()
    (pixels,) = objects(archive, "pixel")
    flip(pixels, pixels.stat().st_size // 3)
    with Archive.open(archive.paths.root) as fresh:
        assert fresh.verify(deep=True).problems
        take(fresh, tmp_path, RENAMED)
        (shown,) = [row for place, row in rows(fresh) if place[4] == 0]
        assert read_whole(fresh, shown.id) == RENAMED


def test_duplicate_missing_and_absurd_instance_numbers_give_stable_names(
    archive: Archive, tmp_path: Path
) -> None:
    def with_number(number: str, name: int) -> bytes:
        head = [a for a in samples.identity(number=name) if a[0] != 0x00200013]
        if number:
            head.append((0x00200013, "IS", number))
        return samples.part10(samples.write(head))

    values = ["7", "7", "7", "", "", "-5", "0", "2147483647", "not a number", "12345678901234567890"]
    files = [with_number(value, name) for name, value in enumerate(values)]
    archive.import_paths([write_sources(tmp_path / "in", files)])
    names = sorted(place[3] for place, _ in rows(archive))
    assert len(names) == len(set(names)) == len(values)
    assert {"000000.dcm", "000007.dcm", "2147483647.dcm"} <= set(names)
    before = numbers(archive)
    archive.pack()
    assert numbers(archive) == before
    archive.close()
    recover_archive(archive.paths.root, archive.paths.local_tier.as_uri())
    with Archive.open(archive.paths.root) as recovered:
        assert numbers(recovered) == before
        assert contents(recovered) == digests(files)


def series_files() -> list[tuple[str, bytes]]:
    """Several series, some of one patient, with duplicate and missing instance numbers."""
    found: list[tuple[str, bytes]] = []
    for seed in range(4):
        patient = f"Patient^{seed % 2}"
        found += [
            (f"s{seed}-{n}", data)
            for n, data in enumerate(samples.ct_series(5, 16, 16, seed, patient=patient))
        ]
    found += [(f"odd-{n}", samples.encapsulated([b"\xff\xd8x\xff\xd9"], number=n)) for n in range(1, 4)]
    found.append(("enhanced", samples.enhanced_mr()))
    found += [(f"sr-{n}", samples.structured_report(number=n)) for n in range(3)]
    found += [(path.as_posix().replace("/", "_"), path.read_bytes()) for path in real_files(*REAL_SERIES)]
    return found


@pytest.fixture(scope="module")
def many() -> Sequence[tuple[str, bytes]]:
    return series_files()


def test_three_orders_of_import_give_one_tree(tmp_path: Path, many: Sequence[tuple[str, bytes]]) -> None:
    trees = []
    for turn in range(3):
        shuffled = list(many)
        random.Random(turn).shuffle(shuffled)
        with Archive.create(tmp_path / f"archive{turn}") as archive:
            cut = len(shuffled) // 3
            for part in range(3):
                piece = dict(shuffled[part * cut : (part + 1) * cut if part < 2 else None])
                archive.import_paths([write_sources(tmp_path / f"in{turn}-{part}", piece)])
                if part == turn:
                    archive.pack()
            trees.append({place: (size, start) for place, (size, _, start) in tree(archive).items()})
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == len(many)


class Failing(Exception):
    """Stands for a crash."""


STEPS = [
    pytest.param(Journal, "append", 1, id="before the nodes are announced"),
    pytest.param(CatalogWriter, "add_patient", 1, id="before the nodes are in the catalog"),
    pytest.param(CatalogWriter, "add_series", 2, id="before all nodes are in the catalog"),
    pytest.param(Spool, "admit", 1, id="before the spool holds the bytes"),
    pytest.param(Catalog, "write_spool", 1, id="before the catalog lists them"),
]


@pytest.mark.parametrize("problem", [CatalogFull("full"), TierFull("local", "", "full"), Failing()], ids=repr)
@pytest.mark.parametrize("owner, step, at", STEPS)
def test_an_acceptance_that_stops_half_way_can_be_repeated_and_recovered(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
    at: int,
    problem: Exception,
) -> None:
    files = samples.ct_series(2, 16, 16) + samples.ct_series(2, 16, 16, seed=1)
    take(archive, tmp_path, samples.structured_report())
    sources = write_sources(tmp_path / "in", [*files, samples.enhanced_mr()])
    real = getattr(owner, step)
    calls = []

    def fail(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == at:
            raise problem
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, fail)
        with pytest.raises(type(problem)):
            archive.import_paths([sources])
    expected = digests([*files, samples.enhanced_mr(), samples.structured_report()])
    report = archive.import_paths([sources])
    assert report.taken + report.already == 5
    assert contents(archive) == expected
    before, nodes = numbers(archive), node_numbers(archive)
    archive.pack()
    archive.close()
    recovering = recover_archive(archive.paths.root, archive.paths.local_tier.as_uri())
    assert recovering.problems == []
    with Archive.open(archive.paths.root) as recovered:
        assert contents(recovered) == expected
        assert numbers(recovered) == before
        assert nodes <= node_numbers(recovered)
        assert recovered.verify(deep=True).problems == []


def test_numbers_are_reserved_in_the_journal_block_by_block(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.accept.NUMBER_BLOCK", 4)
    assert NUMBER_BLOCK == 1024
    files = [samples.structured_report(f"Patient^{n}") for n in range(11)]
    archive.import_paths([write_sources(tmp_path / "in", files)])
    highest = max(number for _, number in node_numbers(archive))
    archive.close()
    recover_archive(archive.paths.root, archive.paths.local_tier.as_uri())
    with Archive.open(archive.paths.root) as recovered:
        take(recovered, tmp_path, samples.structured_report("Patient^new"))
        assert max(number for _, number in node_numbers(recovered)) > highest
        assert contents(recovered) == digests([*files, samples.structured_report("Patient^new")])
