"""Forged objects, whose checks match but whose structures lie: a declared error or harmless values.

Checks are no signatures, so readers can't rely on them: lengths, counts and places are hostile here.
"""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomfs.errors import DicomfsError
from dicomfs.format import head
from dicomfs.format.digest import section_check
from dicomfs.format.framing import SectionWriter, open_section, scan_sections
from dicomfs.format.header import HeaderPackReader
from dicomfs.format.journal import decode_journal
from dicomfs.format.pack import PackReader
from dicomfs.format.version import COMPRESSION_ZSTD, JOURNAL_OBJECT, MAX_INDEX, TRAILER_MAGIC, Section
from tests.format_samples import (
    ARCHIVE_ID,
    CountingReader,
    header_sample,
    journal_sample,
    opaque_sample,
    pixel_sample,
)

_ROUNDS = 400
_NUMBERS = (
    b"\xcf" + b"\xff" * 8,
    b"\xce\xff\xff\xff\xff",
    b"\xd3\x80" + bytes(7),
    b"\xdd\xff\xff\xff\xff",
    b"\xff",
)


def _mutated(payload: bytes, source: random.Random) -> bytes:
    """The payload with a few bytes changed, cut out, or replaced by extreme numbers."""
    data = bytearray(payload)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(data) + 1)
        cut = source.choice((0, 0, 1, 1, 5))
        data[at : at + cut] = source.choice((*_NUMBERS, source.randbytes(1), b""))
    return bytes(data)


def _forge(data: bytes, target: int, source: random.Random, *, trailer: bool) -> bytes:
    """The object again, with the payload of one section of kind ``target`` changed and all checks valid."""
    file = io.BytesIO()
    writer = SectionWriter(file)
    sections = list(scan_sections(CountingReader(data), len(data), "sample"))
    chosen = source.choice([s.number for s in sections if s.kind == target])
    index_offset = 0
    for section in sections:
        _, payload = open_section(data[section.offset : section.end], section.offset, MAX_INDEX, "sample")
        payload = _mutated(payload, source) if section.number == chosen else payload
        index_offset = writer.size
        if not (section.kind == Section.INDEX and not trailer):
            writer.add(section.kind, (payload,))
    if trailer:
        kind = data[-64 + 28]
        size = writer.size + head.TRAILER_BYTES
        fields = head._TRAILER.pack(index_offset, writer.size - index_offset, size, 1, 0, kind, ARCHIVE_ID)
        check = section_check(size - head.TRAILER_BYTES, (fields,))
        writer.append(fields + head._TRAILER_END.pack(check, TRAILER_MAGIC))
    return file.getvalue()


def _use_pack(reader: PackReader) -> None:
    for stack in reader.stacks:
        for segment in stack.segments:
            reader.read_segment(segment)
    for number in range(len(reader.streams)):
        reader.read_stream(number, 0, 10_000)


def _use_header(reader: HeaderPackReader) -> None:
    for number, part in enumerate(reader.parts):
        reader.part(number)
        for row in range(min(part.rows, 10)):
            reader.header(number, row)


def _open_pack(data: bytes) -> None:
    _use_pack(PackReader(CountingReader(data), len(data), "forged"))


def _rebuild_pack(data: bytes) -> None:
    _use_pack(PackReader.rebuild(CountingReader(data), len(data), "forged"))


def _open_header(data: bytes) -> None:
    _use_header(HeaderPackReader(CountingReader(data), len(data), "forged"))


def _rebuild_header(data: bytes) -> None:
    _use_header(HeaderPackReader.rebuild(CountingReader(data), len(data), "forged"))


def _open_journal(data: bytes) -> None:
    decode_journal(data)


_PIXEL = pixel_sample().pack
_OPAQUE = opaque_sample()[0]
_HEADER = header_sample((3, 40), (1, 10), (5, 0), (20, 30))[0]
_FIRST_HEADER = (Path(__file__).parents[1] / "compat" / "v1.0" / "header.pack").read_bytes()


@pytest.mark.parametrize(
    "data, target, trailer, read",
    [
        (_PIXEL, Section.INDEX, True, _open_pack),
        (_PIXEL, Section.SEGMENT, False, _rebuild_pack),
        (_PIXEL, Section.HEAD, False, _rebuild_pack),
        (_OPAQUE, Section.INDEX, True, _open_pack),
        (_OPAQUE, Section.CHUNK, False, _rebuild_pack),
        (_HEADER, Section.INDEX, True, _open_header),
        (_HEADER, Section.SERIES_PARTS, False, _rebuild_header),
        (_FIRST_HEADER, Section.SERIES_PART, False, _rebuild_header),
        (_FIRST_HEADER, Section.HEADER_BLOCK, False, _rebuild_header),
        (_HEADER, Section.HEADER_BLOCK, False, _rebuild_header),
        (journal_sample(), Section.JOURNAL, False, _open_journal),
        (journal_sample(), Section.HEAD, False, _open_journal),
    ],
)
def test_forged_structures_give_declared_errors_in_little_memory(
    data: bytes, target: Section, trailer: bool, read: Callable[[bytes], None]
) -> None:
    source, refused = random.Random(target), 0
    tracemalloc.start()
    for _ in range(_ROUNDS // 8 if data is _FIRST_HEADER else _ROUNDS):
        forged = _forge(data, target, source, trailer=trailer)
        try:
            read(forged)
        except DicomfsError:
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused, "the forgery reached the checks behind the section's own"
    assert peak < 300 << 20


def test_a_forged_length_of_a_compressed_section_allocates_nothing() -> None:
    file = io.BytesIO()
    writer = SectionWriter(file)
    head.write_head(writer, head.new_head(JOURNAL_OBJECT, ARCHIVE_ID))
    writer.add(Section.JOURNAL, (b"x",), compression=COMPRESSION_ZSTD, plain=MAX_INDEX)
    with pytest.raises(DicomfsError):
        decode_journal(file.getvalue())
