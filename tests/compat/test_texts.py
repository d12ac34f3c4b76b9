"""A shared text and a header pack that needs it, as first written: read for ever, and from the page alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicomfs.errors import DamagedError
from dicomfs.format.header import HeaderPackReader
from dicomfs.format.pack import PackReader
from dicomfs.format.shared_texts import TextRef, pieces
from dicomfs.format.text_pack import read_text
from tests.format_samples import CountingReader
from tests.independent_header_packs import plain_bytes_of
from tests.independent_headers import pieces_of, shared_text
from tests.independent_objects import KINDS, cut, open_pack

FOLDER = Path(__file__).parent / "texts"
TEXT, HEADERS = ((FOLDER / name).read_bytes() for name in ("text.pack", "header.pack"))
DIGEST = "7b9cb464310a0edf0dfb259ce95d2c92debecd3434284255d798a70ba75b66ac"


def read(ref: TextRef) -> bytes:
    """The text that the header pack names."""
    pack = PackReader(CountingReader(TEXT), len(TEXT), "text")
    assert hashlib.sha256(TEXT).hexdigest() == ref.key.split("/")[2]
    assert pack.index_digest == ref.index_digest
    return read_text(pack)


def independent(name: bytes, index: bytes) -> bytes:
    """The same from the text alone."""
    pack = open_pack(TEXT, KINDS["text"])
    assert (hashlib.sha256(TEXT).digest(), pack.index_digest) == (name, index)
    (chunk,) = pack.tables.chunks[0]
    assert chunk.stored == chunk.plain
    return shared_text(cut(pack.data, chunk.place, chunk.stored))


def test_header_bytes_come_back_with_their_text() -> None:
    reader = HeaderPackReader(CountingReader(HEADERS), len(HEADERS), "headers", read)
    assert hashlib.sha256(reader.block(0)).hexdigest() == DIGEST
    assert reader.has_whole_text(0)
    assert plain_bytes_of(open_pack(HEADERS, KINDS["header"]), 0, texts=independent) == reader.block(0)


def test_the_table_is_read_without_the_text_and_the_headers_are_not() -> None:
    for reader in (
        HeaderPackReader(CountingReader(HEADERS), len(HEADERS), "headers"),
        HeaderPackReader.rebuild(CountingReader(HEADERS[:-80]), len(HEADERS) - 80, "headers"),
    ):
        assert len(reader.table(0).entries) == 3
        assert [key.split("/")[0] for key in reader.table(0).needs(reader.table(0).entries)] == ["text"]
        with pytest.raises(DamagedError, match="text"):
            reader.block(0)


def test_another_text_is_noticed() -> None:
    reader = HeaderPackReader(CountingReader(HEADERS), len(HEADERS), "headers", lambda ref: read(ref)[::-1])
    with pytest.raises(DamagedError):
        reader.block(0)


def test_a_text_is_cut_as_the_page_says() -> None:
    text = read_text(PackReader(CountingReader(TEXT), len(TEXT), "text"))
    assert pieces(text) == pieces_of(text)
    assert b"".join(pieces(text)) == text
