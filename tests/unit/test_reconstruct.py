"""Reading: any range of any file is the slice of the file, or a declared error."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DamagedError, MismatchError, NotFoundError, ObjectNotFound
from dicomfs.frames import FrameReader, Unit
from dicomfs.model import FramePiece, InstanceId, ObjectKey
from dicomfs.packs import FileRange, PackSource
from dicomfs.reconstruct import check_whole, file_sha256
from dicomfs.tiers.base import ByteRange, Tier
from dicomfs.tiers.wrapper import TierWrapper
from tests import samples
from tests.archives import contents, digests, objects, overwrite, read_whole, rows, write_sources
from tests.conftest import real_files

FILES = [
    *samples.ct_series(5, 20, 24),
    samples.enhanced_mr(7, 9, 11),
    samples.encapsulated([b"\xff\xd8" + bytes(range(256)) * 9 + b"\xff\xd9", b"\xff\xd8\xff\xd9"]),
    samples.structured_report(text="x" * 5000),
    *[path.read_bytes() for path in real_files("series/pt_idc_ge_singles", every=20)],
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("reading")
    with Archive.create(folder / "archive") as created:
        created.import_paths([write_sources(folder / "in", FILES)])
        created.pack()
        yield created


@pytest.fixture
def fresh(archive: Archive) -> Iterator[Archive]:
    with Archive.open(archive.paths.root) as opened:
        yield opened


def by_digest(archive: Archive) -> dict[bytes, InstanceId]:
    return {row.sha256_start: row.id for _, row in rows(archive)}


@pytest.mark.parametrize("index", range(len(FILES)))
def test_any_range_is_the_slice_of_the_file(fresh: Archive, index: int) -> None:
    data = FILES[index]
    instance = by_digest(fresh)[bytes.fromhex(next(iter(digests([data]))))[:8]]
    reader = fresh.reconstructor.open(instance)
    rng = random.Random(index)
    edges = [0, 1, len(data) - 1, len(data), len(data) + 1, len(data) * 2]
    ranges = [(start, length) for start in edges for length in (0, 1, len(data) + 9)]
    ranges += [(rng.randrange(len(data)), rng.randrange(3000)) for _ in range(150)]
    for start, length in ranges:
        expected = data[start : start + length]
        ready = reader.read_ready(start, length)
        assert ready is None or ready == expected
        assert reader.read(start, length) == expected
    assert reader.size == len(data)
    assert file_sha256(reader) == reader.sha256
    check_whole(reader, "sound")
    reader.close()


def test_once_decoded_pixels_are_ready(fresh: Archive) -> None:
    instance = by_digest(fresh)[bytes.fromhex(next(iter(digests([FILES[2]]))))[:8]]
    reader = fresh.reconstructor.open(instance)
    assert reader.read_ready(len(FILES[2]) - 10, 10) is None
    fresh.reconstructor.prefetch(instance)
    assert reader.read_ready(0, len(FILES[2])) == FILES[2]


def test_readers_of_many_threads_get_the_same_bytes(fresh: Archive) -> None:
    wrong: list[InstanceId] = []
    ids = {instance: read_whole(fresh, instance) for instance in by_digest(fresh).values()}

    def read() -> None:
        with Archive.open(fresh.paths.root) as mine:
            for instance, data in ids.items():
                if read_whole(mine, instance) != data:
                    wrong.append(instance)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_reader_tells_where_and_how_an_instance_is_stored(fresh: Archive, tmp_path: Path) -> None:
    for data in FILES:
        reader = fresh.reconstructor.open(by_digest(fresh)[bytes.fromhex(next(iter(digests([data]))))[:8]])
        info = reader.info()
        assert (info["state"], info["sha256"]) == ("packed", reader.sha256.hex())
        assert isinstance(info["stored_bytes"], int)
    ct = fresh.reconstructor.open(by_digest(fresh)[bytes.fromhex(next(iter(digests([FILES[0]]))))[:8]])
    assert ct.dicom_value("Modality") == "CT"
    assert ct.dicom_value("NoSuchKeyword") is None
    assert ct.info()["codec"] not in ("header", "chunks")


def test_what_is_not_there_is_not_found(fresh: Archive) -> None:
    for missing in (InstanceId(999, 0), InstanceId(1, 2**23 - 1)):
        with pytest.raises(NotFoundError):
            fresh.reconstructor.open(missing)


def test_a_whole_file_check_raises_for_other_bytes(archive: Archive) -> None:
    class Lying:
        size = 3
        sha256 = bytes(32)

        def read(self, offset: int, length: int) -> bytes:
            return b"abc"[offset : offset + length]

        def read_ready(self, offset: int, length: int) -> bytes | None:
            return None

        def info(self) -> dict[str, object]:
            return {}

        def dicom_value(self, keyword: str) -> str | None:
            return None

        def close(self) -> None:
            return

    with pytest.raises(MismatchError, match="what"):
        check_whole(Lying(), "what")


class Counting(TierWrapper):
    """Counts the ranges that are asked for."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self.ranges: list[tuple[ObjectKey, int, int]] = []

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        self.ranges.append((key, wanted.offset, wanted.length))
        return super().get_range(key, wanted)


def pixel_key(archive: Archive) -> ObjectKey:
    path = objects(archive, "pixel")[0]
    return ObjectKey(path.relative_to(archive.paths.local_tier).as_posix())


def test_an_index_is_read_once_and_a_payload_once(archive: Archive) -> None:
    tier = Counting(archive.tier)
    source = PackSource(tier)
    frames = FrameReader(source, 1 << 20)
    key = pixel_key(archive)
    stack = frames.stack(key, 0)
    for _ in range(3):
        for frame in range(stack.frames):
            for wanted in frames.slices(key, 0, frame, 0, stack.layout.frame_bytes):
                assert len(frames.fetch(wanted.unit)) == stack.layout.frame_bytes
                assert frames.ready(wanted.unit) is not None
    assert len(tier.ranges) == len(set(tier.ranges))


def test_frames_and_stacks_that_do_not_exist_are_damage(archive: Archive) -> None:
    frames = FrameReader(PackSource(archive.tier), 1 << 20)
    key = pixel_key(archive)
    with pytest.raises(DamagedError, match="no stack"):
        frames.stack(key, 99)
    for frame in (-1, 10_000):
        with pytest.raises(DamagedError, match="no frame"):
            list(frames.slices(key, 0, frame, 0, 1))
        with pytest.raises(DamagedError, match="no frame"):
            frames.fetch(Unit(key, 0, frame, 0))


def test_a_pack_of_another_kind_or_one_that_is_missing_is_not_found(archive: Archive) -> None:
    source = PackSource(archive.tier)
    header = objects(archive, "header")[0].relative_to(archive.paths.local_tier).as_posix()
    with pytest.raises(ObjectNotFound):
        source.pack(ObjectKey(header))
    with pytest.raises(ObjectNotFound):
        source.headers(pixel_key(archive))
    with pytest.raises(ObjectNotFound):
        source.pack(ObjectKey(f"pixel/00/{'0' * 64}"))


def test_a_local_file_is_read_in_ranges(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    file = FileRange(tmp_path / "file")
    assert file.size == 10
    assert (file(2, 3), file(8, 9), file(20, 5), file(0, 0)) == (b"234", b"89", b"", b"")


def test_frame_pieces_add_up_to_the_file_and_a_wrong_table_is_damage(archive: Archive) -> None:
    from dicomfs.format.header import InstanceEntry, SeriesPart
    from dicomfs.reconstruct import PackedReader

    source = PackSource(archive.tier)
    frames = FrameReader(source, 1 << 20)
    key = pixel_key(archive)
    size = frames.stack(key, 0).layout.frame_bytes
    patient = archive.catalog.patients()[0]
    study = archive.catalog.studies(patient.number)[0]
    nodes = (patient, study, archive.catalog.series_of(study.number)[0])
    for count, said in ((1, size + 1), (2, size)):
        entry = InstanceEntry(0, 0, 1, "1.2", said, 0, bytes(32), 0, (FramePiece(key, 0, 0, count, 1),), "")
        digest = source.pack(key).index_digest
        assert digest is not None
        part = SeriesPart(*nodes, 0, {}, [entry], {key: digest})
        with pytest.raises(DamagedError, match="add up"):
            PackedReader(part, 0, b"", frames, source)
    assert contents(archive) == digests(FILES)


def test_a_pack_under_the_name_of_another_is_damage_before_a_byte_is_served(tmp_path: Path) -> None:
    """Two series of one geometry: every digest inside the wrong pack is right."""
    files = {
        f"{patient}-{number}": data
        for seed, patient in enumerate(("One^A", "Two^B"))
        for number, data in enumerate(samples.ct_series(2, 16, 16, seed, patient=patient))
    }
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([write_sources(tmp_path / "in", files)])
        archive.pack()
        one, other = objects(archive, "pixel")
        overwrite(other, one.read_bytes())
    with Archive.open(tmp_path / "archive") as archive:
        refused = []
        for _, row in rows(archive):
            try:
                archive.reconstructor.open(row.id).close()
            except DamagedError as problem:
                refused.append(str(problem))
        assert len(refused) == 2
        assert all("refers to" in reason for reason in refused)
