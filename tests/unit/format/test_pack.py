"""Pixel, burned and opaque packs."""

from __future__ import annotations

import hashlib
import io

import msgspec
import numpy as np
import pytest

from dicomfs.errors import DamagedError, FormatError, NotFoundError, UnsupportedFeature, UnsupportedVersion
from dicomfs.format import head
from dicomfs.format.digest import digest64
from dicomfs.format.framing import SectionWriter
from dicomfs.format.keys import pack_key
from dicomfs.format.pack import PackReader, PackWriter
from dicomfs.format.pack_index import IndexRecord, PlainIndexRecord
from dicomfs.format.pack_notes import Decision, Packing, StoodFor
from dicomfs.format.version import MAX_CHUNK
from dicomfs.model import PackKind, PixelLayout
from tests.format_samples import (
    ARCHIVE_ID,
    LAYOUT,
    RAW,
    CountingReader,
    noted_sample,
    opaque_sample,
    pixel_sample,
    segment_of,
)


def _reader(pack: bytes) -> PackReader:
    return PackReader(CountingReader(pack), len(pack), "sample")


def _frames(reader: PackReader, stack: int) -> list[bytes]:
    """All frames of a stack of raw bands, put together from its segments and checked."""
    frames = []
    for segment in reader.stack(stack).segments:
        payloads = reader.read_segment(segment)
        assert payloads == [reader.read_band(band) for band in segment.bands]
        for frame in range(segment.frames):
            rows = []
            for number, (band, payload) in enumerate(zip(segment.bands, payloads, strict=True)):
                size = band.length // segment.frames
                rows.append(payload[frame * size : (frame + 1) * size])
                assert digest64(rows[-1]) == segment.digests[frame, number]
            frames.append(b"".join(rows))
    return frames


@pytest.mark.parametrize("kind", [PackKind.PIXEL, PackKind.BURNED])
def test_stacks_come_back_in_order_of_frames(kind: PackKind) -> None:
    sample = pixel_sample(kind)
    reader = _reader(sample.pack)
    assert (reader.kind, reader.archive_id, reader.complete) == (kind, ARCHIVE_ID, True)
    assert [stack.layout for stack in reader.stacks] == [LAYOUT, LAYOUT]
    assert [_frames(reader, stack) for stack in (0, 1)] == sample.frames


def test_a_segment_is_found_by_frame() -> None:
    stack = _reader(pixel_sample().pack).stack(0)
    assert [stack.segment_number(frame) for frame in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    with pytest.raises(NotFoundError):
        stack.segment_number(7)


def test_a_small_pack_opens_with_one_range() -> None:
    pack = pixel_sample().pack
    read = CountingReader(pack)
    PackReader(read, len(pack), "sample")
    assert len(read.ranges) == 1


def test_a_pack_with_a_large_index_opens_with_two_ranges() -> None:
    layout = PixelLayout(1, 1, 1, 8, 8, 7, signed=False)
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.PIXEL, ARCHIVE_ID)
    writer.add_stack(layout, 20_000)
    digests = np.random.default_rng(1).integers(0, 2**63, (20_000, 1)).astype(np.uint64)
    writer.add_segment(0, 0, 20_000, RAW, 0, [(0, 1, bytes(20_000))], digests)
    size = writer.finish().size
    read = CountingReader(file.getvalue())
    reader = PackReader(read, size, "sample")
    assert len(read.ranges) == 2
    np.testing.assert_array_equal(reader.stack(0).segments[0].digests, digests)


def test_the_key_is_made_from_all_bytes() -> None:
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.OPAQUE, ARCHIVE_ID)
    with pytest.raises(FormatError):
        _ = writer.key
    summary = writer.finish()
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    assert (summary.sha256, summary.size) == (sha256, len(file.getvalue()))
    assert writer.key == summary.key == f"opaque/{sha256[:2]}/{sha256}"


def test_the_same_input_gives_the_same_object() -> None:
    assert pixel_sample().pack == pixel_sample().pack


@pytest.mark.parametrize("offset, length", [(0, 390), (99, 2), (100, 100), (389, 50), (500, 1), (0, 0)])
def test_ranges_of_a_stream_are_slices(offset: int, length: int) -> None:
    pack, streams = opaque_sample()
    reader = _reader(pack)
    for number, stream in enumerate(streams):
        assert reader.read_stream(number, offset, length) == stream[offset : offset + length]


def test_a_lost_index_is_rebuilt_by_a_scan() -> None:
    sample = pixel_sample()
    for cut in (1, 64, 100):
        reader = PackReader.rebuild(CountingReader(sample.pack[:-cut]), len(sample.pack) - cut, "sample")
        assert reader.complete
        assert [_frames(reader, stack) for stack in (0, 1)] == sample.frames
    pack, streams = opaque_sample()
    reader = PackReader.rebuild(CountingReader(pack[:-100]), len(pack) - 100, "sample")
    assert [reader.read_stream(n, 0, 1000) for n in range(2)] == streams[:2]


def test_a_rebuilt_pack_knows_what_is_lost() -> None:
    sample = pixel_sample()
    place = _reader(sample.pack).stack(0).segments[1].offset
    damaged = bytearray(sample.pack[:-100])
    damaged[place] ^= 1
    reader = PackReader.rebuild(CountingReader(bytes(damaged)), len(damaged), "sample")
    assert not reader.complete
    assert _frames(reader, 0) == sample.frames[0][:4]
    with pytest.raises(DamagedError, match="lost"):
        reader.stack(0).segment_number(5)


def test_a_pack_without_head_and_index_is_refused() -> None:
    pack = b"\0" + pixel_sample().pack[1:-100]
    with pytest.raises(DamagedError, match="neither head nor index"):
        PackReader.rebuild(CountingReader(pack), len(pack), "sample")


def test_a_missing_segment_is_noticed_at_the_end() -> None:
    writer = PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID)
    writer.add_stack(LAYOUT, 2)
    bands, digests = segment_of(LAYOUT, [bytes(LAYOUT.frame_bytes)], [6])
    writer.add_segment(0, 1, 1, RAW, 0, bands, digests)
    with pytest.raises(FormatError, match="missing or doubled"):
        writer.finish()


def test_a_missing_chunk_is_noticed_at_the_end() -> None:
    writer = PackWriter(io.BytesIO(), PackKind.OPAQUE, ARCHIVE_ID)
    writer.add_stream(5)
    writer.add_chunk(0, 0, b"four")
    with pytest.raises(FormatError, match="4 of 5 bytes"):
        writer.finish()


@pytest.mark.parametrize(
    "first, count, bands, shape",
    [
        (0, 1, [(0, 5, b"")], (1, 1)),
        (0, 1, [(1, 6, b"")], (1, 1)),
        (0, 1, [], (1, 0)),
        (0, 1, [(0, 6, b"")], (1, 2)),
        (2, 1, [(0, 6, b"")], (1, 1)),
        (-1, 1, [(0, 6, b"")], (1, 1)),
        (0, 0, [(0, 6, b"")], (0, 1)),
    ],
)
def test_an_impossible_segment_is_refused(
    first: int, count: int, bands: list[tuple[int, int, bytes]], shape: tuple[int, int]
) -> None:
    writer = PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID)
    writer.add_stack(LAYOUT, 2)
    with pytest.raises(FormatError):
        writer.add_segment(0, first, count, RAW, 0, bands, np.zeros(shape, np.uint64))


@pytest.mark.parametrize("offset, plain", [(1, b"x"), (0, b""), (0, bytes(MAX_CHUNK + 1)), (0, bytes(11))])
def test_an_impossible_chunk_is_refused(offset: int, plain: bytes) -> None:
    writer = PackWriter(io.BytesIO(), PackKind.OPAQUE, ARCHIVE_ID)
    writer.add_stream(10)
    with pytest.raises(FormatError):
        writer.add_chunk(0, offset, plain)


def test_kinds_of_packs_do_not_mix() -> None:
    with pytest.raises(FormatError):
        PackWriter(io.BytesIO(), PackKind.HEADER, ARCHIVE_ID)
    with pytest.raises(FormatError):
        PackWriter(io.BytesIO(), PackKind.OPAQUE, ARCHIVE_ID).add_stack(LAYOUT, 1)
    with pytest.raises(FormatError):
        PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID).add_stream(1)


def test_unknown_features_refuse_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "KNOWN_FEATURES", frozenset({"tomorrow"}))
    file = io.BytesIO()
    PackWriter(file, PackKind.PIXEL, ARCHIVE_ID, ["tomorrow"]).finish()
    monkeypatch.undo()
    with pytest.raises(UnsupportedFeature, match="tomorrow"):
        _reader(file.getvalue())
    with pytest.raises(UnsupportedFeature, match="tomorrow"):
        PackReader.rebuild(CountingReader(file.getvalue()), len(file.getvalue()), "sample")


def test_a_newer_major_version_refuses_and_a_newer_minor_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "MINOR", 9)
    assert _reader(pixel_sample().pack).complete
    monkeypatch.setattr(head, "MAJOR", 2)
    newer = pixel_sample().pack
    monkeypatch.undo()
    with pytest.raises(UnsupportedVersion, match="version 2 is newer than 1"):
        _reader(newer)


@pytest.mark.parametrize("optional", [True, False])
def test_unknown_sections_are_skipped_only_when_optional(optional: bool) -> None:
    file = io.BytesIO()
    writer = SectionWriter(file)
    head.write_head(writer, head.new_head(PackKind.PIXEL, ARCHIVE_ID))
    writer.add(99, (b"news",), optional=optional)
    data = file.getvalue()
    if optional:
        assert PackReader.rebuild(CountingReader(data), len(data), "sample").stacks == []
    else:
        with pytest.raises(UnsupportedFeature, match="section kind 99"):
            PackReader.rebuild(CountingReader(data), len(data), "sample")


def test_numbers_outside_the_pack_are_not_found() -> None:
    reader = _reader(pixel_sample().pack)
    for call in (reader.stack, reader.stream):
        for number in (-1, 2):
            with pytest.raises(NotFoundError):
                call(number)


def test_what_the_writer_noted_comes_back() -> None:
    sample, packing = noted_sample()
    reader = _reader(sample.pack)
    assert reader.packing == packing
    assert reader.packing.profile_name == "dense"
    assert [stack.decision for stack in reader.stacks] == list(packing.decisions)
    assert [_frames(reader, stack) for stack in (0, 1)] == sample.frames


def test_a_pack_without_notes_has_none() -> None:
    reader = _reader(pixel_sample().pack)
    assert reader.packing == Packing()
    assert reader.packing.profile_name == ""


def test_what_a_pack_stands_for_survives_the_loss_of_its_index() -> None:
    sample, packing = noted_sample()
    lost = sample.pack[:-200]
    rebuilt = PackReader.rebuild(CountingReader(lost), len(lost), "sample")
    assert rebuilt.packing == Packing(stands_for=packing.stands_for)
    assert [stand_in.key for stand_in in rebuilt.packing.stands_for] == [
        f"pixel/03/{'03' * 32}",
        f"pixel/07/{'07' * 32}",
    ]


def test_notes_that_no_reader_would_accept_are_refused() -> None:
    with pytest.raises(FormatError, match="profile"):
        PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID, profile="denser")
    one = StoodFor.of(pack_key(PackKind.PIXEL, "ab" * 32), 1)
    with pytest.raises(DamagedError):
        PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID, stands_for=[one] * 1025)
    writer = PackWriter(io.BytesIO(), PackKind.PIXEL, ARCHIVE_ID)
    with pytest.raises(DamagedError):
        writer.add_stack(LAYOUT, 1, Decision(-1, ()))


def test_decisions_on_stacks_that_are_not_there_are_damage() -> None:
    index = PlainIndexRecord(head.new_head(PackKind.PIXEL, ARCHIVE_ID), 1, (), (), (), ())
    noted = IndexRecord(**msgspec.structs.asdict(index), packing=Packing(1, (None,)))
    file = io.BytesIO()
    writer = SectionWriter(file)
    head.write_head(writer, index.head)
    head.write_index(writer, index.head, noted)
    with pytest.raises(DamagedError, match="decisions"):
        _reader(file.getvalue())
