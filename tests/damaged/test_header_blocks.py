"""Hostile blocks of columns: a declared error or some bytes, in bounded time and memory.

Digests are no signatures, and come after decoding: everything in a block may be a lie.
"""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from dicomfs.errors import DamagedError, DicomfsError
from dicomfs.format import header_blocks
from dicomfs.format.header_blocks import make_blocks
from dicomfs.format.header_columns import BlockStreams, assemble, templates_of, unpack
from dicomfs.format.templates import CLOSE, COLUMN, LIST, LITERAL, OPEN
from dicomfs.format.varints import put_signed, put_unsigned
from dicomfs.format.version import MAX_COLUMN_BLOCK
from tests import samples
from tests.format_samples import series_part

_ROUNDS = 1500
_LARGE = (1 << 63, (1 << 64) - 1, 1 << 32, 1 << 22, 1 << 20, 255, 127, 0)


def _blocks() -> list[tuple[BlockStreams, int, int]]:
    """Streams, rows and plain bytes of blocks of several kinds."""
    kinds = [
        series_part(1, 30, 50)[1],
        [data[:-128] for data in samples.ct_series(20, 8, 8, 5)],
        [samples.enhanced_mr(4 + number, 4, 4)[:3000] for number in range(6)],
        [data[:400] for data in samples.odd_files().values()],
    ]
    found = []
    for headers in kinds:
        for block in make_blocks(headers):
            found.append((unpack(block.payload, "sample"), block.rows, len(block.plain)))
    return found


_BLOCKS = _blocks()


def _mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(changed) + 1)
        extreme = bytearray()
        put_unsigned(extreme, source.choice(_LARGE))
        cut = source.choice((0, 1, 1, 2, 7))
        changed[at : at + cut] = source.choice(
            (bytes(extreme), source.randbytes(1), source.randbytes(3), b"")
        )
    return bytes(changed)


def _read(streams: BlockStreams, rows: int, plain: int, base: BlockStreams | None = None) -> None:
    templates = None if base is None else templates_of(base, "forged")
    assemble(streams, templates, rows, plain, "forged")


@pytest.mark.parametrize("number", range(len(_BLOCKS)))
@pytest.mark.parametrize("stream", ["program", "text", "numbers", "raw"])
def test_changed_streams_give_declared_errors_or_bytes(number: int, stream: str) -> None:
    streams, rows, plain = _BLOCKS[number]
    source = random.Random(number)
    parts = {name: getattr(streams, name) for name in ("program", "text", "numbers", "raw")}
    refused = 0
    for _ in range(_ROUNDS // 10 if stream != "program" else _ROUNDS):
        forged = BlockStreams(**{**parts, stream: _mutated(parts[stream], source)})
        try:
            _read(forged, rows, plain)
        except DicomfsError:
            refused += 1
    assert refused or not parts[stream]


@pytest.mark.parametrize("number", range(len(_BLOCKS)))
def test_changed_payloads_give_declared_errors_or_bytes(number: int) -> None:
    streams, rows, plain = _BLOCKS[number]
    payload, source, refused = streams.pack(), random.Random(number), 0
    for _ in range(_ROUNDS // 5):
        try:
            _read(unpack(_mutated(payload, source), "forged"), rows, plain)
        except DicomfsError:
            refused += 1
    assert refused


def _program(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        put_unsigned(out, number)
    return bytes(out)


def _signed(value: int) -> bytes:
    out = bytearray()
    put_signed(out, value)
    return bytes(out)


_CONSTANT, _STRINGS, _FIXED, _TABLE, _DECIMAL, _DIGITS = 0, 0, 1, 2, 4, 6
_NESTED = _program(1) + b"".join(_program(1, LIST | 2 << 3) for _ in range(40))
_BOMBS = {
    "templates without end": _program(1 << 16),
    "operations without end": _program(1, 1 << 20),
    "lists in lists": _NESTED,
    "a list of a million": _program(1, 1, LIST | 1 << 3, 0, _CONSTANT) + _signed(1 << 40),
    "a list of less than nothing": _program(1, 1, LIST | 1 << 3, 0, _CONSTANT) + _signed(-1),
    "a long list of steps": (
        _program(1, 1, LIST | 1 << 3, 60, *[COLUMN] * 60, _CONSTANT)
        + _signed(1 << 18)
        + _program(_STRINGS, 0, 0) * 60
    ),
    "a column used again and again": (_program(1, 1000, COLUMN, *[COLUMN | 1 << 3] * 999, _FIXED, 1 << 20)),
    "a table of a million": _program(1, 1, COLUMN, _TABLE, 1 << 20, _STRINGS, _CONSTANT, 0, _CONSTANT, 0),
    "wide numbers": _program(1, 1, LIST | 1 << 3, 1, COLUMN, _CONSTANT)
    + _signed(1 << 19)
    + _program(_DECIMAL, 18, 0, 64, 0, 2),
    "wide digits": _program(1, 1, COLUMN, _DIGITS, 4096, 64),
    "padding without content": (
        _program(1, 1, LIST | 1 << 3, 4, OPEN, 0, 255, LITERAL | 1 << 3, CLOSE, _CONSTANT) + _signed(1 << 19)
    ),
    "brackets in brackets": _program(1, 200, *[OPEN, 0, 0] * 100, *[CLOSE] * 100),
    "a bracket that was never opened": _program(1, 1, CLOSE),
    "a bracket that stays open": _program(1, 1, OPEN, 0, 0),
    "a vector of nothing": _program(1, 1, LIST | 1 << 3, 0, 4, 0, 0, 0, 0),
    "a number without end": b"\xff" * 30,
}


@pytest.mark.parametrize("name", sorted(_BOMBS))
def test_bombs_are_refused_before_they_go_off(name: str) -> None:
    text = bytes(1 << 20)
    streams = BlockStreams(_BOMBS[name], text, text, text)
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(DamagedError):
        _read(streams, 1, MAX_COLUMN_BLOCK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 << 20
    assert time.process_time() - started < 60, "a hang, not a measurement"


def test_blocks_whose_templates_are_of_another_block_are_no_different(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(header_blocks, "BLOCK_ROWS", 10)
    base, other, *_ = make_blocks(series_part(1, 30, 50)[1])
    streams, source, refused = unpack(other.payload, "sample"), random.Random(5), 0
    for _ in range(_ROUNDS):
        forged = BlockStreams(
            _mutated(streams.program, source), streams.text, _mutated(streams.numbers, source), streams.raw
        )
        try:
            _read(forged, other.rows, len(other.plain), unpack(base.payload, "sample"))
        except DicomfsError:
            refused += 1
    assert refused
