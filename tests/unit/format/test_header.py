"""Header packs: tables and header bytes."""

from __future__ import annotations

import dataclasses
import io
import random

import pytest

from dicomfs.errors import DamagedError, FormatError, NotFoundError
from dicomfs.format import header_blocks
from dicomfs.format.framing import scan_sections
from dicomfs.format.header import HeaderPackReader, HeaderPackWriter, InstanceEntry, SeriesPart
from dicomfs.format.header_model import aligned
from dicomfs.format.pack import PackReader
from dicomfs.format.version import MAX_BLOCK, Section
from dicomfs.model import HeaderPiece, ObjectKey, StreamPiece
from tests.format_samples import ARCHIVE_ID, CountingReader, header_sample, pixel_sample, series_part

_SMALL = ((3, 100), (0, 0), (1, 0), (40, 500))
_LARGE = ((2, 100), (7, 500_000), (2, 10), (3, 500_000))
"""The first large part has blocks of its own, the others share one with small ones."""


def _reader(pack: bytes) -> HeaderPackReader:
    return HeaderPackReader(CountingReader(pack), len(pack), "sample")


def _assert_same(reader: HeaderPackReader, parts: list[tuple[SeriesPart, list[bytes]]]) -> None:
    for number, (part, headers) in enumerate(parts):
        assert reader.part(number) == part
        assert [reader.header(number, row) for row in range(len(headers))] == headers


@pytest.mark.parametrize("shapes", [_SMALL, _LARGE, ()])
def test_tables_and_headers_come_back(shapes: tuple[tuple[int, ...], ...]) -> None:
    pack, parts = header_sample(*shapes)
    _assert_same(_reader(pack), parts)


@pytest.mark.parametrize("cut", [1, 64, 100])
def test_a_lost_index_is_rebuilt_by_a_scan(cut: int) -> None:
    pack, parts = header_sample(*_LARGE)
    _assert_same(HeaderPackReader.rebuild(CountingReader(pack[:-cut]), len(pack) - cut, "sample"), parts)


def test_small_series_share_a_block() -> None:
    pack, _ = header_sample(*[(1, 2000)] * 30)
    assert _reader(pack).block_count == 1


def test_thirty_small_series_take_little_more_than_their_digests() -> None:
    pack, _ = header_sample(*[(1, 0)] * 30)
    assert len(pack) < 30 * 350


def test_a_long_series_takes_tens_of_bytes_an_instance() -> None:
    pack, parts = header_sample((2000, 3000))
    assert len(pack) / len(parts[0][1]) < 60


def test_later_blocks_of_a_series_use_its_first_header() -> None:
    pack, _ = header_sample((7, 500_000))
    assert len(pack) < 2 * 500_000, "the incompressible part common to all headers is stored once, or nearly"


def _study(series: int, rows: int, study: int) -> tuple[SeriesPart, list[bytes]]:
    """A series whose headers hold a long protocol that all have, and something of their own."""
    part, headers = series_part(series, rows, 5000)
    protocol = random.Random(1).randbytes(6000)
    headers = [header[:100] + protocol[: len(header) - 100] for header in headers]
    node = dataclasses.replace(part.study, number=study)
    return dataclasses.replace(
        part, study=node, series=dataclasses.replace(part.series, study=study)
    ), headers


def _packed(parts: list[tuple[SeriesPart, list[bytes]]]) -> bytes:
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID)
    for part, headers in parts:
        writer.add_part(part, headers)
    writer.finish()
    return file.getvalue()


def test_series_of_one_study_share_what_they_have_in_common() -> None:
    joint = [_study(number, 20, 1) for number in range(1, 5)]
    apart = [_study(number, 20, number) for number in range(1, 5)]
    together = _reader(_packed(joint))
    _assert_same(together, joint)
    assert together.block_count == 1
    assert _reader(_packed(apart)).block_count == 4
    blocks = [
        sum(reader.stored_bytes(number) for number in range(reader.block_count))
        for reader in (together, _reader(_packed(apart)))
    ]
    assert blocks[0] < 0.6 * blocks[1]


def test_a_block_of_a_study_has_not_too_many_rows() -> None:
    parts = [_study(1, 200, 1), _study(2, 100, 1), _study(3, 5, 1), _study(4, 300, 1), _study(5, 30, 1)]
    reader = _reader(_packed(parts))
    _assert_same(reader, parts)
    assert reader.block_count == 5
    _assert_same(HeaderPackReader.rebuild(CountingReader(_packed(parts)), len(_packed(parts)), "x"), parts)


def test_places_of_headers_lie_inside_their_blocks() -> None:
    pack, parts = header_sample(*_LARGE)
    reader = _reader(pack)
    for number, (_, headers) in enumerate(parts):
        for row, header in enumerate(headers):
            block, offset, length = reader.block_of(number, row)
            assert reader.block(block)[offset : offset + length] == header


def test_the_index_says_what_a_pack_holds() -> None:
    pack, _ = header_sample((3, 10), (1, 10))
    reader = _reader(pack)
    assert [(part.series, part.part, part.rows) for part in reader.parts] == [(0, 0, 3), (1, 0, 1)]
    assert reader.archive_id == ARCHIVE_ID


def test_rows_and_parts_outside_are_not_found() -> None:
    pack, _ = header_sample((1, 10))
    reader = _reader(pack)
    for part, row in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        with pytest.raises(NotFoundError):
            reader.header(part, row)


def test_a_lost_block_loses_its_headers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_blocks, "BLOCK_ROWS", 8)
    pack, parts = header_sample.__wrapped__((20, 500))
    reader = _without_block(pack, 1)
    table = reader.part(0)
    kept = [*range(8), *range(16, 20)]
    assert [table.entries[row] for row in kept] == [parts[0][0].entries[row] for row in kept]
    stored = {9, 14}
    assert all(bool(table.entries[row].sop_instance_uid) == (row in stored) for row in range(8, 16))
    assert [reader.header(0, row) for row in kept] == [parts[0][1][row] for row in kept]
    with pytest.raises(DamagedError, match="block 1 is lost"):
        reader.header(0, 8)


def test_without_the_block_that_holds_the_templates_the_table_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(header_blocks, "BLOCK_ROWS", 8)
    pack, parts = header_sample.__wrapped__((20, 500))
    reader = _without_block(pack, 0)
    assert [one.sha256 for one in reader.part(0).entries] == [one.sha256 for one in parts[0][0].entries]
    with pytest.raises(DamagedError, match="block 0 is lost"):
        reader.header(0, 19)


def _without_block(pack: bytes, number: int) -> HeaderPackReader:
    """A pack without its index and without one header block."""
    sections = list(scan_sections(CountingReader(pack), len(pack), "sample"))
    block = [section for section in sections if section.kind == Section.HEADER_BLOCK][number]
    damaged = bytearray(pack[: sections[-1].offset])
    damaged[block.end - 1] ^= 1
    return HeaderPackReader.rebuild(CountingReader(bytes(damaged)), len(damaged), "sample")


def test_small_series_are_found_by_a_scan_under_the_numbers_that_the_index_gives_them() -> None:
    pack, parts = header_sample((2, 100), (30, 100), (1, 50), (0, 0), (20, 10), (3, 3))
    _assert_same(HeaderPackReader.rebuild(CountingReader(pack[:-80]), len(pack) - 80, "sample"), parts)


def test_a_table_without_its_uids_needs_no_header_block() -> None:
    pack, parts = header_sample((20, 500))
    read = CountingReader(pack)
    reader = HeaderPackReader(read, len(pack), "sample")
    read.ranges.clear()
    table = reader.table(0)
    assert len(read.ranges) == 1
    assert [one.sha256 for one in table.entries] == [one.sha256 for one in parts[0][0].entries]


def test_header_bytes_that_no_template_makes_are_stored_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_blocks, "aligned", lambda roots: aligned(roots[:1] * len(roots)))
    pack, parts = header_sample.__wrapped__((20, 500))
    _assert_same(_reader(pack), parts)


def test_the_two_readers_refuse_each_other_s_packs() -> None:
    pack, _ = header_sample((1, 10))
    with pytest.raises(DamagedError):
        PackReader(CountingReader(pack), len(pack), "sample")
    with pytest.raises(DamagedError):
        _reader(pixel_sample().pack)


def _change(entry: InstanceEntry, **fields: object) -> InstanceEntry:
    return dataclasses.replace(entry, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"position": 1 << 23},
        {"position": -1},
        {"size": 3},
        {"mtime_ns": 1 << 63},
        {"sha256": b"short"},
        {"sop_instance_uid": "1" * 2000},
        {"sop_instance_uid": "\udc80"},
        {"note": "\udc80"},
        {"pieces": (HeaderPiece(9),)},
        {"pieces": (HeaderPiece(10), StreamPiece(ObjectKey("elsewhere"), 0, 0, 1))},
        {"pieces": (HeaderPiece(10), StreamPiece(ObjectKey("header/ab/" + "ab" * 32), 0, 0, 1))},
    ],
)
def test_entries_that_no_reader_accepts_are_refused(fields: dict[str, object]) -> None:
    part, headers = series_part(0, 1, 0)
    bad = dataclasses.replace(part, entries=[_change(part.entries[0], **fields)])
    with pytest.raises(FormatError):
        HeaderPackWriter(io.BytesIO(), ARCHIVE_ID).add_part(bad, headers)


def test_a_header_above_the_limit_is_refused() -> None:
    part, headers = series_part(0, 1, MAX_BLOCK)
    with pytest.raises(FormatError):
        HeaderPackWriter(io.BytesIO(), ARCHIVE_ID).add_part(part, headers)


def test_a_refused_part_leaves_the_writer_as_it_was() -> None:
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID)
    part, headers = series_part(0, 2, 50)
    with pytest.raises(FormatError):
        writer.add_part(part, [headers[0], b""])
    writer.add_part(part, headers)
    writer.finish()
    _assert_same(_reader(file.getvalue()), [(part, headers)])


def test_the_key_is_known_when_the_pack_is_finished() -> None:
    writer = HeaderPackWriter(io.BytesIO(), ARCHIVE_ID)
    with pytest.raises(FormatError):
        _ = writer.key
    assert writer.finish().key == writer.key
    assert writer.key.startswith("header/")
