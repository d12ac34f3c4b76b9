"""Journal objects."""

from __future__ import annotations

import io

import msgspec
import pytest

from dicomfs.errors import DamagedError, FormatError, UnsupportedFeature
from dicomfs.format.framing import SectionWriter
from dicomfs.format.head import new_head, write_head
from dicomfs.format.journal import CountersReserved, Journal, decode_journal, encode_journal
from dicomfs.format.version import JOURNAL_OBJECT, Section
from dicomfs.model import PackKind
from tests.format_samples import ARCHIVE_ID, journal_entries, journal_sample, pixel_sample


def _with_entries(entries: list[object], *, kind: int = JOURNAL_OBJECT, before: int | None = None) -> bytes:
    file = io.BytesIO()
    writer = SectionWriter(file)
    write_head(writer, new_head(kind, ARCHIVE_ID))
    if before is not None:
        writer.add(before, (b"news",), optional=True)
    writer.add(Section.JOURNAL, (msgspec.msgpack.encode([bytes(8), 1, "9.9", entries]),))
    return file.getvalue()


def test_entries_of_all_kinds_come_back_in_order() -> None:
    journal = decode_journal(journal_sample())
    assert journal == Journal(2**63 + 5, ARCHIVE_ID, 1_600_000_000_000_000_000, "1.0", journal_entries())


def test_an_object_without_entries_is_valid() -> None:
    assert decode_journal(encode_journal([], 0, ARCHIVE_ID, 0, "")).entries == ()


def test_an_unknown_kind_of_entry_refuses_the_object() -> None:
    with pytest.raises(UnsupportedFeature, match="journal entry kind 77"):
        decode_journal(_with_entries([[2, 1, 2, 3], [77, "news"]]))


def test_unknown_fields_at_the_end_of_an_entry_are_ignored() -> None:
    assert decode_journal(_with_entries([[2, 1, 2, 3, "news"]])).entries == (CountersReserved(1, 2, 3),)


def test_optional_sections_before_the_journal_are_skipped() -> None:
    assert len(decode_journal(_with_entries([[2, 1, 2, 3]], before=99)).entries) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        journal_sample()[:-1],
        journal_sample() + b"\0",
        pixel_sample().pack,
        _with_entries([], kind=PackKind.PIXEL),
        _with_entries([5]),
        _with_entries([[]]),
        _with_entries([[2, -1, 0, 0]]),
        _with_entries([[3, [[0, 1 << 23, 0, 0, 0, 0]]]]),
        _with_entries([[3, [[0, 0, 0, 0, 0, 9]]]]),
        _with_entries([[11, [[0, [1 << 23]]], ""]]),
        _with_entries([[11, [[0, [-1]]], ""]]),
        _with_entries([[12, [[5, 1, 0]], ""]]),
        _with_entries([[13, [[0, 1, 0]], ""]]),
    ],
)
def test_what_is_no_journal_object_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_journal(data)


@pytest.mark.parametrize("sequence", [-1, 1 << 64])
def test_an_impossible_sequence_number_is_refused(sequence: int) -> None:
    with pytest.raises(FormatError):
        encode_journal([], sequence, ARCHIVE_ID, 0, "")


def test_impossible_values_are_refused_when_written() -> None:
    with pytest.raises(FormatError):
        encode_journal([CountersReserved(-1, 0, 0)], 0, ARCHIVE_ID, 0, "")
