"""Tables whose pieces are codestreams."""

from __future__ import annotations

import io

import pytest

from dicomfs.errors import DamagedError, FormatError, UnsupportedFeature
from dicomfs.format import head
from dicomfs.format.coded_pieces import FEATURE
from dicomfs.format.header import HeaderPackReader, HeaderPackWriter, needed_features
from dicomfs.format.version import KNOWN_FEATURES
from tests.format_samples import ARCHIVE_ID, CountingReader, codestream_part, codestream_sample, series_part


def test_pieces_and_recipes_come_back() -> None:
    part, headers = codestream_part()
    data = codestream_sample()
    reader = HeaderPackReader(CountingReader(data), len(data), "pack")
    assert reader.part(0) == part
    assert [reader.header(0, row) for row in range(len(headers))] == headers


def test_a_reader_without_the_feature_refuses_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    data = codestream_sample()
    monkeypatch.setattr(head, "KNOWN_FEATURES", KNOWN_FEATURES - {FEATURE})
    with pytest.raises(UnsupportedFeature, match=FEATURE):
        HeaderPackReader(CountingReader(data), len(data), "pack")


def test_a_writer_without_the_feature_refuses_the_part() -> None:
    part, headers = codestream_part()
    assert needed_features([part]) == (FEATURE,)
    assert needed_features([series_part(1, 3, 5)[0]]) == ()
    writer = HeaderPackWriter(io.BytesIO(), ARCHIVE_ID)
    with pytest.raises(FormatError, match=FEATURE):
        writer.add_part(part, headers)


def test_a_damaged_table_is_read_or_refused() -> None:
    data = codestream_sample()
    for at in range(0, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            reader = HeaderPackReader(CountingReader(damaged), len(damaged), "pack")
            reader.part(0)
            for row in range(4):
                reader.header(0, row)
        except (DamagedError, FormatError):
            continue
