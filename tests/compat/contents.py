"""What a golden object decodes to, as one digest: independent of how values are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator

import msgspec

from dicomfs.format.header import HeaderPackReader, SeriesPart
from dicomfs.format.journal import Journal, decode_journal
from dicomfs.format.pack import PackReader
from dicomfs.format.pack_notes import Packing
from tests.format_samples import CountingReader


def contents_of(name: str, data: bytes) -> str:
    """SHA-256 over all values and bytes in an object; how to read it follows from its file name."""
    found = hashlib.sha256()
    for piece in _pieces(name, data):
        found.update(len(piece).to_bytes(8, "little") + piece)
    return found.hexdigest()


def _pieces(name: str, data: bytes) -> Iterator[bytes]:
    if name.startswith("journal"):
        yield _values(decode_journal(data))
    elif name.startswith("header"):
        yield from _header_pieces(HeaderPackReader(CountingReader(data), len(data), name))
    else:
        yield from _pack_pieces(PackReader(CountingReader(data), len(data), name))


def _header_pieces(reader: HeaderPackReader) -> Iterator[bytes]:
    for number, part in enumerate(reader.parts):
        yield _values(reader.part(number))
        for row in range(part.rows):
            yield reader.header(number, row)


def _pack_pieces(reader: PackReader) -> Iterator[bytes]:
    yield f"{reader.kind.name} {reader.archive_id.hex()}".encode()
    for stack in reader.stacks:
        yield json.dumps(dataclasses.asdict(stack.layout)).encode()
        for segment in stack.segments:
            bands = [[band.first_row, band.rows] for band in segment.bands]
            yield json.dumps([segment.first_frame, segment.frames, segment.codec, bands]).encode()
            yield segment.digests.astype("<u8").tobytes()
            yield from reader.read_segment(segment)
    if reader.packing != Packing():
        yield json.dumps(msgspec.structs.asdict(reader.packing), default=_plain).encode()
    for number, stream in enumerate(reader.streams):
        yield reader.read_stream(number, 0, stream.length)


def _values(value: Journal | SeriesPart) -> bytes:
    """Fields by name, the same whatever is added to the classes' order or defaults later."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True, default=_hex).encode()


def _plain(value: object) -> object:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else _hex(value)


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
