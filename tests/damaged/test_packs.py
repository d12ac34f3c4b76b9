"""Damaged packs give declared errors or correct data: never wrong data, never another exception."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.digest import digest64
from dicomfs.format.header import HeaderPackReader
from dicomfs.format.journal import decode_journal
from dicomfs.format.pack import PackReader
from tests.format_samples import (
    CountingReader,
    header_sample,
    journal_entries,
    journal_sample,
    opaque_sample,
    pixel_sample,
)

_PIXEL = pixel_sample()
_OPAQUE, _STREAMS = opaque_sample()
_HEADER, _PARTS = header_sample((3, 40), (1, 10), (5, 0))
_JOURNAL = journal_sample()


def _stacks(reader: PackReader) -> None:
    """Whatever passes its digests is what was put in."""
    for number, stack in enumerate(reader.stacks):
        for segment in stack.segments:
            for band in range(len(segment.bands)):
                extent = segment.bands[band]
                payload = reader.read_band(extent)
                size = extent.length // segment.frames
                for frame in range(segment.frames):
                    rows = payload[frame * size : (frame + 1) * size]
                    if digest64(rows) == segment.digests[frame, band]:
                        row_bytes = stack.layout.row_bytes
                        start = extent.first_row * row_bytes
                        expected = _PIXEL.frames[number][segment.first_frame + frame]
                        assert rows == expected[start : start + extent.rows * row_bytes]


def _streams(reader: PackReader) -> None:
    for number, stream in enumerate(reader.streams):
        for chunk in stream.chunks:
            found = reader.read_stream(number, chunk.offset, chunk.plain)
            assert found == _STREAMS[number][chunk.offset : chunk.offset + chunk.plain]


def _parts(reader: HeaderPackReader) -> None:
    for number, summary in enumerate(reader.parts):
        part = reader.part(number)
        expected, headers = next(item for item in _PARTS if item[0].series.number == summary.series)
        assert part == expected
        for row in range(summary.rows):
            assert reader.header(number, row) == headers[row]


def _read_pack(check: Callable[[PackReader], None]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        check(PackReader(CountingReader(data), len(data), "damaged"))

    return read


def _rebuild_pack(check: Callable[[PackReader], None]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        check(PackReader.rebuild(CountingReader(data), len(data), "damaged"))

    return read


def _read_header(data: bytes) -> None:
    _parts(HeaderPackReader(CountingReader(data), len(data), "damaged"))


def _rebuild_header(data: bytes) -> None:
    _parts(HeaderPackReader.rebuild(CountingReader(data), len(data), "damaged"))


def _read_journal(data: bytes) -> None:
    assert decode_journal(data).entries == journal_entries()


_CASES: dict[str, tuple[bytes, Callable[[bytes], None]]] = {
    "pixel": (_PIXEL.pack, _read_pack(_stacks)),
    "pixel, rebuilt": (_PIXEL.pack, _rebuild_pack(_stacks)),
    "pixel without trailer, rebuilt": (_PIXEL.pack[:-70], _rebuild_pack(_stacks)),
    "opaque": (_OPAQUE, _read_pack(_streams)),
    "opaque, rebuilt": (_OPAQUE, _rebuild_pack(_streams)),
    "opaque without trailer, rebuilt": (_OPAQUE[:-70], _rebuild_pack(_streams)),
    "header": (_HEADER, _read_header),
    "header, rebuilt": (_HEADER, _rebuild_header),
    "header without trailer, rebuilt": (_HEADER[:-70], _rebuild_header),
    "journal": (_JOURNAL, _read_journal),
}


@pytest.fixture(params=_CASES)
def case(request: pytest.FixtureRequest) -> tuple[bytes, Callable[[bytes], None]]:
    return _CASES[request.param]


def _each(damaged: Iterator[bytes], read: Callable[[bytes], None]) -> None:
    """Read each; declared errors are fine, what is read has to be right."""
    for data in damaged:
        with suppress(FormatError):
            read(data)


def test_the_undamaged_samples_read_well(case: tuple[bytes, Callable[[bytes], None]]) -> None:
    data, read = case
    read(data)


def _flipped(data: bytes, step: int) -> Iterator[bytes]:
    damaged = bytearray(data)
    for bit in range(0, 8 * len(data), step):
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
        damaged[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("name", _CASES)
def test_every_flipped_bit_gives_an_error_or_correct_data(name: str) -> None:
    data, read = _CASES[name]
    # A scan is slow: there, every seventh bit, thus one or two of each byte.
    step = 7 if "rebuilt" in name else 1
    _each(_flipped(data, step), read)


def test_every_truncation_gives_an_error_or_correct_data(case: tuple[bytes, Callable[[bytes], None]]) -> None:
    data, read = case
    _each((data[:length] for length in range(len(data))), read)


def test_no_flipped_bit_of_a_journal_object_is_overlooked() -> None:
    for bit in range(8 * len(_JOURNAL)):
        damaged = bytearray(_JOURNAL)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode_journal(bytes(damaged))


@pytest.mark.parametrize("name", ["pixel", "opaque", "header"])
def test_every_truncated_or_extended_pack_is_refused_when_opened(name: str) -> None:
    data, read = _CASES[name]
    for damaged in (*(data[:length] for length in range(len(data))), data + b"\0", data + data):
        with pytest.raises(DamagedError):
            read(damaged)


def test_overwritten_runs_give_errors_or_correct_data(case: tuple[bytes, Callable[[bytes], None]]) -> None:
    data, read = case
    source = random.Random(1)

    def overwritten() -> Iterator[bytes]:
        for _ in range(300):
            start, length = source.randrange(len(data)), source.randrange(1, 200)
            fill = source.choice([bytes(length), source.randbytes(length), data[:length]])
            yield data[:start] + fill + data[start + len(fill) :]

    _each(overwritten(), read)


def test_swapped_sections_give_errors_or_correct_data() -> None:
    half = len(_PIXEL.pack) // 2
    for cut in range(40, half, 7):
        moved = _PIXEL.pack[:40] + _PIXEL.pack[cut:half] + _PIXEL.pack[40:cut] + _PIXEL.pack[half:]
        _each(iter([moved]), _CASES["pixel"][1])
        _each(iter([moved]), _CASES["pixel, rebuilt"][1])
