"""The stored form of snapshots."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.errors import FormatError
from dicomfs.format.header_table import InstanceEntry
from dicomfs.format.keys import pack_key
from dicomfs.format.snapshot import (
    About,
    HeaderFacts,
    PartFacts,
    SnapshotReader,
    SnapshotWriter,
    StandInFacts,
)
from dicomfs.model import ObjectKey, PackKind, PatientNode, SeriesNode, StudyNode
from tests.format_samples import ARCHIVE_ID
from tests.independent_snapshots import read_snapshot

ABOUT = About(10**18, "0.1", 2**63 + 1, 3)
TEXT = st.sampled_from(["", "1.2.3", "1.2.34", "Doe^Jané", "x" * 64])
KEYS = st.builds(pack_key, st.sampled_from([PackKind.PIXEL, PackKind.OPAQUE]), st.just("5a" * 32))
ENTRIES = st.builds(
    InstanceEntry,
    st.integers(0, 2**23 - 1),
    st.integers(0, 2),
    st.none() | st.integers(-(2**31), 2**31),
    TEXT,
    st.integers(0, 2**48 - 1),
    st.integers(-(2**62), 2**62),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
    st.just(()),
    st.just(""),
)
PARTS = st.builds(
    PartFacts,
    st.builds(PatientNode, st.integers(0, 2**40), TEXT, TEXT, TEXT, TEXT),
    st.builds(StudyNode, st.integers(0, 2**40), st.integers(0, 9), TEXT, TEXT, TEXT, TEXT),
    st.builds(SeriesNode, st.integers(0, 2**37 - 1), st.integers(0, 9), TEXT, TEXT, TEXT, TEXT, TEXT),
    st.integers(0, 9),
    st.dictionaries(TEXT, st.integers(0, 2**63 - 1), max_size=2),
    st.frozensets(KEYS, max_size=2),
    st.lists(ENTRIES, max_size=4),
)


def header_key(number: int) -> ObjectKey:
    return pack_key(PackKind.HEADER, f"{number:064x}")


def write(headers: list[HeaderFacts], journal: list[bytes], stand_ins: list[StandInFacts]) -> bytes:
    file = io.BytesIO()
    writer = SnapshotWriter(file, ARCHIVE_ID, ABOUT)
    for number, data in enumerate(journal, 1):
        writer.add_journal(number, data)
    for facts in headers:
        writer.add_header(facts)
    for one in stand_ins:
        writer.add_stand_in(one)
    writer.finish()
    return file.getvalue()


def reader_of(data: bytes) -> SnapshotReader:
    return SnapshotReader(lambda offset, length: data[offset : offset + length], len(data), "snapshot")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(PARTS, max_size=3), max_size=4), st.lists(st.binary(max_size=40), max_size=3))
def test_what_is_written_comes_back_here_and_to_who_knows_the_page_alone(
    packs: list[list[PartFacts]], journal: list[bytes]
) -> None:
    headers = [HeaderFacts(header_key(n), 100 + n, tuple(parts)) for n, parts in enumerate(packs)]
    names = (pack_key(PackKind.PIXEL, "01" * 32), pack_key(PackKind.PIXEL, "02" * 32))
    stand_ins = [StandInFacts(pack_key(PackKind.BURNED, "03" * 32), 7, "dense", names)]
    data = write(headers, journal, stand_ins)
    reader = reader_of(data)
    assert (reader.archive_id, reader.about) == (ARCHIVE_ID, ABOUT)
    assert list(reader.journal()) == list(enumerate(journal, 1))
    assert [reader.header(key) for key in list(reader.keys())] == headers
    assert list(reader.stand_ins()) == stand_ins
    other = read_snapshot(data)
    assert other.about == (ABOUT.time_ns, ABOUT.writer, ABOUT.sequence, ABOUT.headers)
    assert other.journal == dict(enumerate(journal, 1))
    assert other.stand_ins == {one.key: (one.size, one.profile, list(one.stands_for)) for one in stand_ins}
    for facts in headers:
        size, parts = other.headers[facts.key]
        assert size == facts.size
        for part, read in zip(facts.parts, parts, strict=True):
            assert read["series"][0] == part.series.number
            assert read["needed"] == part.needed
            assert read["high water"] == part.high_water
            assert read["rows"] == [
                (
                    e.position,
                    e.name_level,
                    e.instance_number,
                    e.sop_instance_uid,
                    e.size,
                    e.mtime_ns,
                    e.order,
                    e.sha256,
                )
                for e in part.entries
            ]


def test_facts_are_taken_over_from_another_snapshot_only_for_a_pack_of_the_same_size() -> None:
    facts = HeaderFacts(header_key(1), 5, ())
    first = reader_of(write([facts], [], []))
    file = io.BytesIO()
    writer = SnapshotWriter(file, ARCHIVE_ID, ABOUT)
    assert not writer.copy_header(first, facts.key, 6)
    assert not writer.copy_header(first, header_key(2), 5)
    assert writer.copy_header(first, facts.key, 5)
    writer.finish()
    assert reader_of(file.getvalue()).header(facts.key) == facts


def test_long_lists_lie_in_several_sections() -> None:
    journal = [bytes([n]) * 300_000 for n in range(8)]
    data = write([], journal, [])
    assert [found for _, found in reader_of(data).journal()] == journal
    assert read_snapshot(data).journal == dict(enumerate(journal, 1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_told_or_changes_nothing(drawn: st.DataObject) -> None:
    facts = [HeaderFacts(header_key(n), n, ()) for n in range(3)]
    data = bytearray(write(facts, [b"journal"], []))
    place = drawn.draw(st.integers(0, len(data) - 1))
    if drawn.draw(st.booleans()):
        data[place] ^= drawn.draw(st.integers(1, 255))
    else:
        del data[place:]
    try:
        reader = reader_of(bytes(data))
        assert [reader.header(key) for key in list(reader.keys())] in (facts, facts[:0])
        assert list(reader.journal()) in ([(1, b"journal")], [])
    except FormatError:
        pass


def test_a_pack_of_frames_is_no_header_pack() -> None:
    with pytest.raises(FormatError, match="no header pack"):
        write([HeaderFacts(pack_key(PackKind.PIXEL, "00" * 32), 1, ())], [], [])
