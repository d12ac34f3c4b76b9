"""What the product writes is read by a reader that knows `docs/format.md` only, byte for byte."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.archive import Archive
from dicomfs.format import header_blocks
from dicomfs.format.header import HeaderPackReader
from dicomfs.packing import together
from tests import samples
from tests.archives import rows, write_sources
from tests.compat.test_bands import BANDS, COLUMNS, FRAMES, ROWS, content
from tests.conftest import CHECKOUT, find_real_data, real_files
from tests.independent_codecs import Layout, Refused, decode_band
from tests.independent_columns import integers, texts
from tests.independent_header_packs import plain_bytes_of
from tests.independent_objects import INDEX, KINDS, Tables, open_pack, scan
from tests.independent_reader import TierReader

PROFILES = ("fast", "dense")
REAL = (
    "series/ct_ge_hispeed_head_4mm",
    "series/mr_siemens_xa30_enhanced_mf",
    "series/mr_uih_dti",
    "series/pt_idc_ge_singles",
    "series/us_cine_epiq_grey",
    "series/xa_rubo_cine_jpegbaseline",
    "odd/pydicom+pydicom",
)
CODECS = {"raw": 0, "zstd": 1, "jpegls": 2, "jpegxl": 3, "ffv1": 4, "hevc": 5}
TABLES = frozenset(KINDS) - {"journal"}
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Built:
    """A packed archive: its local tier, the accepted files by SHA-256, and where it shows them."""

    tier: Path
    files: Mapping[bytes, Path]
    shown: Mapping[str, bytes]


def native(
    series: str, pixels: Array, *, samples_of: int = 1, planar: int = 0, stored: int | None = None
) -> list[bytes]:
    """Files of a series, one for each element of the first axis."""
    columns = pixels.shape[3] if planar else pixels.shape[2]
    lines = pixels.shape[2] if planar else pixels.shape[1]
    files = []
    for number, frame in enumerate(pixels, 1):
        head = samples.identity("Native^Patient", number, series=series) + samples.plane(float(number))
        head += samples.image(
            lines,
            columns,
            bits=8 * pixels.dtype.itemsize,
            stored=stored,
            signed=pixels.dtype.kind == "i",
            samples=samples_of,
            planar=planar,
        )
        value: samples.Attribute = (samples.PIXEL_DATA, "OW", frame.tobytes())
        files.append(
            samples.part10(
                samples.write([*head, value]), instance=samples.uid("Native^Patient", series, number)
            )
        )
    return files


def natives() -> list[bytes]:
    """Series of every kind of native pixels."""
    body = samples.volume(7, 48, 40, 5)
    grey = (body + 1024).astype("<u2")
    eight = (grey >> 4).astype(np.uint8)
    colour = np.stack([eight, np.roll(eight, 1, 2), eight // 2], axis=3)
    overlay = grey | ((np.indices(grey.shape).sum(axis=0) % 7 < 2).astype("<u2") << 15)
    padded = body.copy()
    padded[:, :, :5] = -32768
    large = samples.volume(3, 900, 800, 7)
    floats: samples.Attribute = (0x7FE00008, "OF", body[0].astype("<f4").tobytes())
    head = samples.identity("Native^Patient", 1, series="float") + samples.image(48, 40, bits=32)
    return [
        *native("grey 16", grey, stored=12),
        *native("grey 8", eight),
        *native("signed 16", body),
        *native("signed 8", eight.astype(np.int8)),
        *native("padded", padded),
        *native("overlay in the high bit", overlay, stored=12),
        *native("32 bits", grey.astype("<u4") * 1000),
        *native("constant", np.full((4, 16, 16), 77, "<u2")),
        *native("colour by pixel", colour, samples_of=3),
        *native("colour by plane", np.moveaxis(colour, 3, 1), samples_of=3, planar=1),
        *native("larger than a band", large),
        samples.part10(samples.write([*head, floats]), instance=samples.uid("float")),
    ]


def others() -> list[bytes]:
    """What is not native, or is written in another way, or is large where others are small."""
    noise = random.Random(3).randbytes(3 << 20)
    cine = samples.identity(
        "Cine^Patient", 9, series="burned", modality="US", sop_class=samples.US_MULTIFRAME
    )
    cine += [*samples.image(16, 16, bits=8, frames=5), (samples.PIXEL_DATA, "OW", noise[: 5 * 256])]
    text = b"".join(b"%07d " % (k * k) for k in range(640_000))
    head = samples.identity("Large^Patient", 1, series="l")
    private: samples.Attribute = (0x00091010, "OB", text)
    unnumbered = [one for one in samples.identity("Large^Patient", 3, series="l") if one[0] != 0x00200013]
    return [
        samples.enhanced_mr(12, 32, 32),
        samples.structured_report(),
        samples.encapsulated([noise[: 1 << 20], noise[1 << 20 :]], number=2),
        samples.part10(samples.write([*head, private]), instance=samples.uid("large")),
        samples.part10(samples.write(unnumbered), instance=samples.uid("unnumbered")),
        samples.part10(samples.write(cine), sop_class=samples.US_MULTIFRAME, instance=samples.uid("burned")),
        *long_headers(),
        *samples.long_headers("First^Text", samples.protocol(1)),
        *samples.ct_series(4, 32, 32, 1, patient="Big^Endian", syntax=samples.BIG_ENDIAN),
        *samples.ct_series(4, 32, 32, 2, patient="Deflated", syntax=samples.DEFLATED),
        *samples.ct_series(4, 32, 32, 3, patient="Implicit", syntax=samples.IMPLICIT),
        *samples.odd_files().values(),
    ]


def long_headers() -> list[bytes]:
    """A series whose headers do not fit in one block and are alike."""
    files = []
    for number in range(1, 12):
        text = b"".join(b"%06d %04x;" % (k, k * k + number * (k % 50 == 0)) for k in range(35_000))
        head = samples.identity("Long^Patient", number, series="long") + samples.image(8, 8)
        head += [(0x00091010, "UT", text), (samples.PIXEL_DATA, "OW", bytes([number]) * 128)]
        files.append(samples.part10(samples.write(head), instance=samples.uid("long", number)))
    return files


def conflicts() -> list[bytes]:
    """One instance in five forms, each of which conflicts with the one shown, in order of import."""
    (first,) = samples.ct_series(1, 16, 16, patient="Conflict")
    (implicit,) = samples.ct_series(1, 16, 16, patient="Conflict", syntax=samples.IMPLICIT)
    renamed = first.replace(b"Head routine", b"Head Routine")
    return [first[:-100], first, implicit, renamed, first[:-100] + bytes(100)]


def build(folder: Path, profile: str, batches: Sequence[Path]) -> Built:
    """Import and pack batch after batch."""
    with Archive.create(folder) as archive:
        for batch in batches:
            archive.import_paths([batch])
            archive.pack(profile)
        shown = {}
        for (patient, study, series, name, version), row in rows(archive):
            place = f"{patient}/{study}/{series}/{name}"
            path = f"versions/{place}/{version}.dcm" if version else f"patients/{place}"
            shown[path] = row.sha256_start
        tier = archive.paths.local_tier
    return Built(tier, accepted(batches, set(shown.values())), shown)


def accepted(folders: Sequence[Path], starts: set[bytes]) -> dict[bytes, Path]:
    """The sources that an archive took (not those without a SOP Instance UID), by SHA-256."""
    files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    found: dict[bytes, Path] = {}
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest[:8] in starts:
            found.setdefault(digest, path)
    return found


@pytest.fixture(scope="module", params=PROFILES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("independent")
    batches: list[Sequence[bytes]] = [natives(), others()]
    batches += [[data] for data in conflicts()]
    more = samples.ct_series(300, 8, 8, 9)
    batches += [more[:150], more[150:]]
    sources = [write_sources(folder / f"in{number}", batch) for number, batch in enumerate(batches)]
    with pytest.MonkeyPatch.context() as patch:
        # A series of 150 then has blocks that use the templates of its first one.
        patch.setattr(header_blocks, "BLOCK_ROWS", 64)
        return build(folder / "archive", request.param, sources)


def compare(reader: TierReader, built: Built) -> int:
    """Compare all that a reader finds with the accepted files; returns the bytes compared."""
    assert {one.sha256 for one in reader.instances} == set(built.files)
    assert len(reader.instances) == len(built.files)
    compared = 0
    for instance in reader.instances:
        source = built.files[instance.sha256]
        data = reader.read(instance)
        assert data == source.read_bytes()
        assert (instance.size, instance.mtime_ns) == (len(data), source.stat().st_mtime_ns)
        compared += len(data)
    assert {reader.path_of(one): one.sha256[:8] for one in reader.instances} == built.shown
    return compared


def objects(tier: Path) -> list[Path]:
    """All packs of a tier."""
    return sorted(path for kind in TABLES for path in (tier / kind).rglob("*") if path.is_file())


def cut_off(tier: Path, target: Path) -> Path:
    """A copy of a tier in which every pack ends before its index."""
    shutil.copytree(tier, target)
    for path in objects(target):
        data = path.read_bytes()
        (index,) = (section for section in scan(data) if section.kind == INDEX)
        path.chmod(0o600)
        path.write_bytes(data[: index.offset])
    return target


def test_every_file_comes_back_from_the_text_alone(built: Built) -> None:
    reader = TierReader(built.tier)
    assert compare(reader, built) > 6 << 20
    assert not reader.scanned


def test_of_parts_that_overlap_the_one_counts_that_the_catalog_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "DEPOSITS", 3)
    slices = samples.ct_series(4, 16, 16)
    other = samples.ct_series(1, 16, 16, 9, patient="Second^Patient")
    batches = [[slices[0], *other], [slices[1]], [slices[2]], [slices[3]]]
    sources = [write_sources(tmp_path / f"in{number}", batch) for number, batch in enumerate(batches)]
    built = build(tmp_path / "archive", "fast", sources)
    # The first header pack is there for the other patient, and still lists a slice that went elsewhere.
    assert len(list((built.tier / "header").glob("??/*"))) == 3
    compare(TierReader(built.tier), built)


def test_packs_without_index_give_the_same_bytes_by_a_scan(built: Built, tmp_path: Path) -> None:
    reader = TierReader(cut_off(built.tier, tmp_path / "tier"))
    compare(reader, built)
    assert reader.scanned == {str(path.relative_to(built.tier)) for path in objects(built.tier)}


def test_an_index_says_what_the_sections_say(built: Built) -> None:
    for path in objects(built.tier):
        data, kind = path.read_bytes(), KINDS[path.parts[-3]]
        (index,) = (section for section in scan(data) if section.kind == INDEX)
        by_index, by_sections = open_pack(data, kind), open_pack(data[: index.offset], kind)
        assert by_index.archive == by_sections.archive
        assert by_index.tables == by_sections.tables
        assert by_sections.scanned
        assert not by_index.scanned


def test_the_archive_holds_all_that_the_text_tells_of(built: Built) -> None:
    tables: list[tuple[str, Tables]] = []
    for path in objects(built.tier):
        tables.append((path.parts[-3], open_pack(path.read_bytes(), KINDS[path.parts[-3]]).tables))
    reader = TierReader(built.tier)
    assert {kind for kind, _ in tables} == TABLES
    assert any(len(one.band_rows) > 1 for _, each in tables for run in each.segments.values() for one in run)
    assert any(len(chunks) > 1 for _, each in tables for chunks in each.chunks.values())
    assert any(len(each.blocks) > 1 for _, each in tables)
    blocks = [block for _, each in tables for block in each.blocks.values()]
    assert all(block.rows for block in blocks)
    assert any(block.base is not None for block in blocks)
    assert any(number for _, each in tables for _, number in each.parts)
    assert {piece.kind for one in reader.instances for piece in one.pieces} == set("HFS")
    assert any(one.name.startswith("x-") for one in reader.instances)
    assert [number for number, document in enumerate(reader.journal, 1) if document.sequence != number] == []
    assert {node.level for document in reader.journal for node in document.nodes} == {
        "patient",
        "study",
        "series",
    }
    assert {one.conflict for document in reader.journal for one in document.decisions} >= {1, 2, 3, 4}


def test_without_its_journal_an_archive_shows_the_last_of_one_name(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.tier, tmp_path / "tier", ignore=shutil.ignore_patterns("journal"))
    reader = TierReader(tmp_path / "tier")
    last: dict[tuple[int, str], int] = {}
    for one in reader.instances:
        name = (one.series.number, one.name)
        last[name] = max(last.get(name, 0), one.position)
    shown = {
        reader.path_of(one): one.position == last[one.series.number, one.name] for one in reader.instances
    }
    assert len(shown) == len(built.shown)
    assert all(path.startswith("patients/") == is_last for path, is_last in shown.items())


def test_damage_is_refused_or_does_not_matter(built: Built, tmp_path: Path) -> None:
    """Only digests and checks stand between a flipped bit and the reader: there is none they do not cover."""
    tier = tmp_path / "tier"
    shutil.copytree(built.tier, tier)
    chance = random.Random(11)
    for path in objects(tier):
        whole = path.read_bytes()
        path.chmod(0o600)
        for _ in range(2):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            assert_served_bytes_are_right(tier, built)
        path.write_bytes(whole)


def assert_served_bytes_are_right(tier: Path, built: Built) -> None:
    try:
        reader = TierReader(tier)
    except Refused:
        return
    for instance in reader.instances[::17]:
        try:
            data = reader.read(instance)
        except Refused:
            continue
        assert data == built.files[instance.sha256].read_bytes()


@pytest.mark.parametrize("path", sorted(BANDS.glob("*.band")), ids=lambda path: path.stem)
def test_every_codec_is_told_in_full(path: Path) -> None:
    codec, kind, _ = path.stem.split("-")
    known, raw = content(kind)
    flags = known.signed | known.big_endian << 1 | known.is_float << 2
    layout = Layout(
        ROWS, COLUMNS, known.samples, known.bits_allocated, known.bits_stored, known.high_bit, flags
    )
    found = decode_band(path.read_bytes(), layout, ROWS, FRAMES, CODECS[codec])
    assert found == [frame.tobytes() for frame in raw]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("folder", [name for name in REAL if real_files(name)])
def test_real_files_come_back_from_the_text_alone(folder: str, profile: str, tmp_path: Path) -> None:
    root = find_real_data()
    assert root is not None
    built = build(tmp_path / "archive", profile, [root / folder])
    compare(TierReader(built.tier), built)
    compare(TierReader(cut_off(built.tier, tmp_path / "tier")), built)


@pytest.mark.parametrize("name", ["v1.0/header.pack", "v1.1/header.pack", "v1.1/header-columns.pack"])
def test_header_blocks_of_all_versions_are_told_in_full(name: str) -> None:
    data = (Path(__file__).parent / name).read_bytes()
    pack = open_pack(data, KINDS["header"])
    reader = HeaderPackReader(lambda offset, length: data[offset : offset + length], len(data), "golden")
    blocks = pack.tables.blocks
    assert (
        any(block.dictionary or block.base is not None for block in blocks.values()) or "columns" not in name
    )
    for number in blocks:
        assert plain_bytes_of(pack, number) == reader.block(number)


def test_columns_are_those_of_the_text() -> None:
    assert integers([0, 5, 0, 0, b""], 3) == [5, 5, 5]
    assert integers([1, 5, -2, 0, b""], 4) == [5, 3, 1, -1]
    assert integers([2, 0, 0, 2, bytes([1, 2, 0, 1])], 2) == [-1, 129]
    assert integers([3, 2**63 - 1, 0, 1, bytes([2, 1])], 3) == [2**63 - 1, -(2**63), 2**63 - 1]
    lengths = [[2, 0, 0, 1, bytes([0, 4])], [2, 0, 0, 1, bytes([6, 2])]]
    assert texts([*lengths, b"abcd"], 2) == ["abc", "abd"]


def test_the_independent_reader_imports_nothing_of_the_product() -> None:
    script = (
        "import sys, tests.independent_reader\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'dicomfs'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
