"""Packs, header packs and journal objects give back what was put in, whatever that is."""

from __future__ import annotations

import io
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.format.columns import decode_ints, decode_texts, encode_ints, encode_texts
from dicomfs.format.digest import digest64
from dicomfs.format.header import HeaderPackReader, HeaderPackWriter, InstanceEntry, SeriesPart
from dicomfs.format.journal import (
    CountersReserved,
    NodesMade,
    PinsChanged,
    VersionDecision,
    VersionsDecided,
    decode_journal,
    encode_journal,
)
from dicomfs.format.keys import pack_key
from dicomfs.format.pack import PackReader, PackWriter
from dicomfs.format.shared_texts import is_part_of, pieces
from dicomfs.model import (
    ConflictClass,
    FramePiece,
    HeaderPiece,
    InstanceId,
    PackKind,
    PatientNode,
    PixelLayout,
    SeriesNode,
    StreamPiece,
    StudyNode,
)
from tests.format_samples import ARCHIVE_ID, RAW, CountingReader, segment_of
from tests.independent_headers import pieces_of

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_NUMBER = st.integers(0, (1 << 58) - 1)
_SERIES = st.integers(0, (1 << 37) - 1)
_POSITION = st.integers(0, (1 << 23) - 1)
_KEY = st.builds(
    lambda kind, digest: pack_key(kind, digest.hex()),
    st.sampled_from([PackKind.PIXEL, PackKind.BURNED, PackKind.OPAQUE]),
    st.binary(min_size=32, max_size=32),
)
_LENGTH = st.integers(0, 1 << 48)
_FRAME = st.integers(0, 1 << 31)
_PATIENT = st.builds(PatientNode, _NUMBER, _TEXT, _TEXT, _TEXT, _TEXT)
_STUDY = st.builds(StudyNode, _NUMBER, _NUMBER, _TEXT, _TEXT, _TEXT, _TEXT)
_SERIES_NODE = st.builds(SeriesNode, _SERIES, _NUMBER, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT)
_PIECE = st.one_of(
    st.builds(HeaderPiece, st.integers(0, 60)),
    st.builds(
        FramePiece,
        _KEY,
        st.integers(0, 65_535),
        _FRAME,
        st.integers(1, 1 << 31),
        st.integers(-(1 << 31), 1 << 31),
    ),
    st.builds(StreamPiece, _KEY, st.integers(0, (1 << 20) - 1), _LENGTH, _LENGTH),
)


@st.composite
def _entries(draw: st.DrawFn) -> InstanceEntry:
    pieces = tuple(draw(st.lists(_PIECE, max_size=5)))
    header = sum(piece.length for piece in pieces if isinstance(piece, HeaderPiece))
    return InstanceEntry(
        draw(_POSITION),
        draw(st.integers(0, 3)),
        draw(st.none() | _INT64),
        draw(_TEXT),
        header + draw(_LENGTH),
        draw(_INT64),
        draw(st.binary(min_size=32, max_size=32)),
        draw(st.integers(0, 1 << 40)),
        pieces,
        draw(st.sampled_from(["", "truncated", "deflated"])),
    )


@st.composite
def _parts(draw: st.DrawFn) -> SeriesPart:
    entries = draw(st.lists(_entries(), max_size=8))
    named = {piece.pack for entry in entries for piece in entry.pieces if not isinstance(piece, HeaderPiece)}
    return SeriesPart(
        draw(_PATIENT),
        draw(_STUDY),
        draw(_SERIES_NODE),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(st.dictionaries(st.sampled_from(["patient", "study", "series"]), _NUMBER)),
        entries,
        {key: draw(st.integers(0, (1 << 64) - 1)) for key in sorted(named)},
    )


def _read(pack: bytes) -> tuple[Any, int, str]:
    return CountingReader(pack), len(pack), "sample"


@given(st.lists(_INT64, max_size=50))
def test_any_integers_come_back(values: list[int]) -> None:
    assert decode_ints(encode_ints(values), len(values), "x").tolist() == values


@given(st.lists(_TEXT, max_size=20))
def test_any_texts_come_back(texts: list[str]) -> None:
    assert decode_texts(encode_texts(texts), len(texts), "x") == texts


@st.composite
def _stacks(draw: st.DrawFn) -> tuple[PixelLayout, list[bytes], list[int], list[int]]:
    """A layout, its frames, the frames of each segment, the rows of each band."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    bits = draw(st.sampled_from([8, 16, 32, 64]))
    hints = draw(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535), *[st.booleans()] * 3))
    layout = PixelLayout(rows, columns, draw(st.integers(1, 3)), bits, *hints)
    segments = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    size = layout.frame_bytes
    content = draw(st.binary(min_size=1, max_size=64))
    frames = [(content * (size // len(content) + 2))[n % len(content) :][:size] for n in range(sum(segments))]
    cuts = sorted(draw(st.sets(st.integers(1, rows), max_size=3)) - {rows})
    bands = [end - start for start, end in zip([0, *cuts], [*cuts, rows], strict=True)]
    return layout, frames, segments, bands


@settings(deadline=None)
@given(st.lists(_stacks(), max_size=3), st.randoms(use_true_random=False), st.booleans())
def test_any_stacks_come_back(
    stacks: list[tuple[PixelLayout, list[bytes], list[int], list[int]]], order: Any, lose_index: bool
) -> None:
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.BURNED, ARCHIVE_ID)
    todo = []
    for layout, frames, segments, bands in stacks:
        number, first = writer.add_stack(layout, len(frames)), 0
        for count in segments:
            todo.append((number, layout, first, frames[first : first + count], bands))
            first += count
    order.shuffle(todo)
    for number, layout, first, part, bands in todo:
        payloads, digests = segment_of(layout, part, bands)
        writer.add_segment(number, first, len(part), RAW, 0, payloads, digests)
    writer.finish()
    pack = file.getvalue()
    reader = PackReader.rebuild(*_read(pack[:-80])) if lose_index else PackReader(*_read(pack))
    for stack, (layout, frames, _, _) in zip(reader.stacks, stacks, strict=True):
        assert (stack.layout, stack.frames, stack.complete) == (layout, len(frames), True)
        for frame, expected in enumerate(frames):
            segment = stack.segments[stack.segment_number(frame)]
            inside = frame - segment.first_frame
            rows = []
            for band, payload in zip(segment.bands, reader.read_segment(segment), strict=True):
                size = band.rows * layout.row_bytes
                rows.append(payload[inside * size : (inside + 1) * size])
            assert b"".join(rows) == expected
            assert [digest64(row) for row in rows] == segment.digests[inside].tolist()


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=300) | st.integers(1, 900).map(bytes), max_size=3),
    st.integers(1, 200),
    st.integers(-5, 400),
    st.integers(-5, 400),
    st.booleans(),
)
def test_any_range_of_a_stream_is_its_slice(
    streams: list[bytes], chunk: int, offset: int, length: int, lose_index: bool
) -> None:
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.OPAQUE, ARCHIVE_ID)
    for stream in streams:
        number = writer.add_stream(len(stream))
        for start in range(0, len(stream), chunk):
            writer.add_chunk(number, start, stream[start : start + chunk])
    writer.finish()
    pack = file.getvalue()
    reader = PackReader.rebuild(*_read(pack[:-80])) if lose_index else PackReader(*_read(pack))
    start = max(offset, 0)
    for number, stream in enumerate(streams):
        if stream or not lose_index:
            assert reader.read_stream(number, offset, length) == stream[start : start + max(length, 0)]


@settings(deadline=None, max_examples=60)
@given(st.lists(_parts(), max_size=3), st.booleans())
def test_any_series_parts_come_back(parts: list[SeriesPart], lose_index: bool) -> None:
    file = io.BytesIO()
    writer = HeaderPackWriter(file, ARCHIVE_ID)
    headers = [[bytes([row]) * entry.header_bytes for row, entry in enumerate(p.entries)] for p in parts]
    for part, part_headers in zip(parts, headers, strict=True):
        writer.add_part(part, part_headers)
    writer.finish()
    pack = file.getvalue()
    reader = HeaderPackReader.rebuild(*_read(pack[:-80])) if lose_index else HeaderPackReader(*_read(pack))
    assert [reader.part(number) for number in range(len(reader.parts))] == parts
    for number, part_headers in enumerate(headers):
        assert [reader.header(number, row) for row in range(len(part_headers))] == part_headers


_INSTANCE = st.builds(InstanceId, _SERIES, _POSITION)
_JOURNAL_ENTRY = st.one_of(
    st.builds(
        NodesMade,
        st.lists(_PATIENT, max_size=2).map(tuple),
        st.lists(_STUDY, max_size=2).map(tuple),
        st.lists(_SERIES_NODE, max_size=2).map(tuple),
    ),
    st.builds(CountersReserved, _NUMBER, _NUMBER, _NUMBER),
    st.builds(
        VersionsDecided,
        st.lists(
            st.builds(
                VersionDecision,
                _INSTANCE,
                _INSTANCE,
                st.integers(0, (1 << 32) - 1),
                st.sampled_from(ConflictClass),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(
        PinsChanged, st.lists(_SERIES, max_size=3).map(tuple), st.lists(_SERIES, max_size=3).map(tuple)
    ),
)


@given(st.lists(_JOURNAL_ENTRY, max_size=4), st.integers(0, (1 << 64) - 1), _INT64, _TEXT)
def test_any_journal_comes_back(entries: list[Any], sequence: int, time_ns: int, writer: str) -> None:
    journal = decode_journal(encode_journal(entries, sequence, ARCHIVE_ID, time_ns, writer))
    assert (journal.sequence, journal.time_ns, journal.writer) == (sequence, time_ns, writer)
    assert journal.entries == tuple(entries)


_LINES = st.lists(
    st.sampled_from([b"sPar.lItem[1] = 7\n", b"\0" * 40, b"<Method.", bytes(range(256))]), max_size=80
)


@given(st.binary(max_size=3000), _LINES, st.integers(0, 2**32), st.data())
@settings(max_examples=60, deadline=None)
def test_texts_are_cut_by_their_bytes_alone(
    start: bytes, lines: list[bytes], seed: int, data: st.DataObject
) -> None:
    text = start + random.Random(seed).randbytes(2000) + b"".join(lines)
    found = pieces(text)
    assert found == pieces_of(text)
    assert text.startswith(b"".join(found))
    chosen = [piece for piece in found if data.draw(st.booleans())]
    # Chosen pieces are cut as before wherever they stand, and are part of what they were chosen from.
    assert pieces(b"".join(chosen)) == chosen
    assert is_part_of(b"".join(chosen), text)
    assert not is_part_of(random.Random(seed + 1).randbytes(4000), text)
