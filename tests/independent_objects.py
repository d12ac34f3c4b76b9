"""Sections, packs and their tables, read from `docs/format.md` alone; see `independent_reader`.

Favours the obvious over the fast: an object is read whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from msgspec import DecodeError, msgpack

from tests.independent_codecs import Layout, Refused, Unsupported, unzstd

MAGIC = bytes.fromhex("d1434d46530d0a1a")
END_MAGIC = bytes.fromhex("d1434d454e440a1a")
HEAD, SEGMENT, CHUNK, HEADER_BLOCK, SERIES_PART, JOURNAL, INDEX, STANDS_FOR, SERIES_PARTS = range(1, 10)
FEATURES = {"codestreams", "columns", "texts"}
KINDS = {"pixel": 1, "burned": 2, "opaque": 3, "header": 4, "text": 5, "journal": 16}
ALLOWED = {
    1: {HEAD, STANDS_FOR, SEGMENT, INDEX},
    2: {HEAD, STANDS_FOR, SEGMENT, INDEX},
    3: {HEAD, CHUNK, INDEX},
    4: {HEAD, HEADER_BLOCK, SERIES_PART, SERIES_PARTS, INDEX},
    5: {HEAD, CHUNK, INDEX},
    16: {HEAD, JOURNAL},
}
TABLE_LIMIT, BLOCK_LIMIT, CHUNK_LIMIT, DESCRIPTION_LIMIT = 64 << 20, 4 << 20, 1 << 20, 16 << 20
_SECTION = struct.Struct("<8sHBBIQQQ")
_TRAILER = struct.Struct("<QQQHHB3x16sQ8s")


@dataclass(frozen=True)
class Section:
    """An intact section: where it is and what its header says."""

    offset: int
    kind: int
    optional: bool
    compressed: bool
    stored: int
    plain: int

    @property
    def start(self) -> int:
        """Offset of the payload."""
        return self.offset + 40

    @property
    def end(self) -> int:
        """Offset behind the payload."""
        return self.start + self.stored


@dataclass(frozen=True)
class Segment:
    """A run of frames, and where its band payloads begin."""

    stack: int
    first: int
    frames: int
    codec: int
    band_rows: Sequence[int]
    band_lengths: Sequence[int]
    digests: bytes
    place: int


@dataclass(frozen=True)
class Chunk:
    """A chunk of a stream."""

    offset: int
    plain: int
    stored: int
    place: int
    digest: bytes


@dataclass(frozen=True)
class Block:
    """A header block; ``dictionary`` is (block, offset, length), ``base`` the block with its templates."""

    place: int
    stored: int
    plain: int
    digest: bytes
    dictionary: tuple[int, int, int] | None
    rows: int = 0
    base: int | None = None


@dataclass
class Tables:
    """What an index says, or a scan of the sections."""

    stacks: dict[int, tuple[Layout, int]] = field(default_factory=dict)
    segments: dict[int, list[Segment]] = field(default_factory=dict)
    streams: dict[int, int] = field(default_factory=dict)
    chunks: dict[int, list[Chunk]] = field(default_factory=dict)
    blocks: dict[int, Block] = field(default_factory=dict)
    parts: list[tuple[int, int]] = field(default_factory=list)
    """Offset of the section of each part, and which of the parts in it this is."""
    stands_for: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    """Kind, digest, index digest of packs in whose place this one is read."""


@dataclass(frozen=True)
class Pack:
    """An opened pack; ``scanned`` when trailer or index were not there."""

    data: bytes
    kind: int
    archive: bytes
    tables: Tables
    scanned: bool
    index_digest: bytes
    """Digest of the plain index, empty where there is none."""


# Objects ---------------------------------------------------------------------------------------------------


def section_at(data: bytes, offset: int) -> Section:
    """Return the intact section at an offset; raises Refused."""
    if not 0 <= offset <= len(data) - 40:
        raise Refused(f"no section fits at {offset}")
    magic, kind, flags, compression, _, stored, plain, check = _SECTION.unpack_from(data, offset)
    if magic != MAGIC or flags & ~1 or compression > 1 or stored > len(data) - offset - 40:
        raise Refused(f"no section at {offset}")
    if not compression and stored != plain:
        raise Refused(f"lengths of the section at {offset} differ")
    hashed = xxhash.xxh3_64(data[offset : offset + 32], seed=offset)
    hashed.update(memoryview(data)[offset + 40 : offset + 40 + stored])
    if hashed.intdigest() != check:
        raise Refused(f"check of the section at {offset}")
    return Section(offset, kind, bool(flags & 1), bool(compression), stored, plain)


def scan(data: bytes) -> Iterator[Section]:
    """Every intact section from offset 0, over whatever lies between them."""
    offset, allowance = 0, 2 * len(data) + (64 << 20)
    while 0 <= offset < len(data) and allowance > 0:
        try:
            section = section_at(data, offset)
        except Refused:
            if data[offset : offset + 8] == MAGIC and len(data) - offset >= 40:
                allowance -= min(struct.unpack_from("<Q", data, offset + 16)[0], len(data))
            offset = data.find(MAGIC, offset + 1)
            continue
        yield section
        offset = section.end


def payload(data: bytes, section: Section, limit: int) -> bytes:
    """Plain payload of a section of at most ``limit`` bytes."""
    if section.plain > limit:
        raise Refused(f"the section at {section.offset} has {section.plain} bytes")
    stored = data[section.start : section.end]
    return unzstd(stored, section.plain) if section.compressed else stored


def fields(value: Any, count: int) -> list[Any]:
    """The first ``count`` fields of a structure; those that a newer minor version added are ignored."""
    if not isinstance(value, list) or len(value) < count:
        raise Refused(f"a structure has fewer than {count} fields")
    return value[:count]


def structure(data: bytes) -> Any:
    """Decode MessagePack; raises Refused."""
    try:
        return msgpack.decode(data)
    except DecodeError as error:
        raise Refused("no MessagePack") from error


def cut(data: bytes, start: int, length: int) -> bytes:
    """Bytes that must lie inside the object."""
    if start < 0 or length < 0 or start + length > len(data):
        raise Refused("a place outside of the object")
    return data[start : start + length]


def digest(plain: bytes) -> bytes:
    """Digest of plain bytes, as it is stored."""
    return xxhash.xxh3_64_intdigest(plain).to_bytes(8, "little")


def description(data: bytes, section: Section) -> tuple[Any, int]:
    """Structure at the start of a section of kind 2 to 4 or 9, and the offset of what follows it."""
    if section.compressed or section.stored < 4:
        raise Refused("a section with a description is stored as it is")
    (length,) = struct.unpack_from("<I", data, section.start)
    if length > min(DESCRIPTION_LIMIT, section.stored - 4):
        raise Refused("the description does not fit")
    begin = section.start + 4
    return structure(data[begin : begin + length]), begin + length


def check_head(value: Any, kind: int) -> bytes:
    """Check a head; returns the archive id."""
    major, _, found, archive, features = fields(value, 5)
    if major > 1:
        raise Unsupported(f"major version {major}")
    if set(features) - FEATURES:
        raise Unsupported(f"features {features}")
    if found != kind or len(archive) != 16:
        raise Refused("the head is of another object")
    return bytes(archive)


def known(section: Section, kind: int) -> bool:
    """Whether a section is to be read; raises Unsupported for an unknown one that is not optional."""
    if section.kind in ALLOWED[kind]:
        return True
    if not section.optional:
        raise Unsupported(f"section kind {section.kind}")
    return False


def open_pack(data: bytes, kind: int) -> Pack:
    """Open a pack by trailer and index, by a scan where they are not intact."""
    try:
        archive, plain = _by_trailer(data, kind)
    except Unsupported:
        raise
    except Refused:
        return _by_scan(data, kind)
    return Pack(
        data, kind, archive, index_tables(structure(plain), kind), scanned=False, index_digest=digest(plain)
    )


def _by_trailer(data: bytes, kind: int) -> tuple[bytes, bytes]:
    at = len(data) - 64
    if at < 0:
        raise Refused("too short for a trailer")
    offset, length, size, major, minor, found, archive, check, magic = _TRAILER.unpack_from(data, at)
    if magic != END_MAGIC or size != len(data) or xxhash.xxh3_64_intdigest(data[at : at + 48], at) != check:
        raise Refused("no trailer")
    if major > 1:
        raise Unsupported(f"major version {major}")
    section = section_at(data, offset)
    if section.kind != INDEX or found != kind or section.end != at or length != at - offset:
        raise Refused("the trailer points to no index")
    plain = payload(data, section, TABLE_LIMIT)
    head = fields(structure(plain), 1)[0]
    if check_head(head, kind) != archive or head[:2] != [major, minor]:
        raise Refused("head and trailer differ")
    return archive, plain


def _by_scan(data: bytes, kind: int) -> Pack:
    archive = b""
    kept: list[Section] = []
    for section in scan(data):
        if not known(section, kind):
            continue
        if section.kind == HEAD:
            archive = check_head(structure(payload(data, section, TABLE_LIMIT)), kind)
        elif section.kind == INDEX:
            plain = payload(data, section, TABLE_LIMIT)
            index = structure(plain)
            archive = check_head(fields(index, 1)[0], kind)
            return Pack(
                data, kind, archive, index_tables(index, kind), scanned=True, index_digest=digest(plain)
            )
        else:
            kept.append(section)
    return Pack(data, kind, archive, section_tables(data, kept), scanned=True, index_digest=b"")


# Tables of a pack ------------------------------------------------------------------------------------------


def _stack(value: Any) -> tuple[Layout, int]:
    layout, frames = fields(value, 2)
    return Layout(*fields(layout, 7)), int(frames)


def _segment(value: Any, place: int) -> Segment:
    stack, first, frames, codec, _, band_rows, lengths, digests = fields(value, 8)
    return Segment(stack, first, frames, codec, tuple(band_rows), tuple(lengths), digests, place)


def _stood_for(value: Any) -> tuple[int, bytes, bytes]:
    kind, name, index = fields(value, 3)
    if len(name) != 32 or len(index) != 8:
        raise Refused("a pack that is stood for")
    return kind, name, index


def _dictionary(value: Any) -> tuple[int, int, int] | None:
    if value is None:
        return None
    block, offset, length = fields(value, 3)
    return block, offset, length


def index_tables(index: Any, kind: int) -> Tables:
    """Tables from an INDEX payload."""
    tables = Tables()
    if kind == KINDS["header"]:
        _, _, blocks, parts = fields(index, 4)
        for number, block in enumerate(blocks):
            place, stored, plain, digest, dictionary = fields(block, 5)
            tables.blocks[number] = Block(place, stored, plain, digest, _dictionary(dictionary), *block[5:7])
        places = [fields(part, 7)[5] for part in parts]
        tables.parts = [(place, places[:number].count(place)) for number, place in enumerate(places)]
        return tables
    _, _, stacks, segments, places, streams = fields(index, 6)
    if len(index) > 6:
        profile, decisions, stands_for = fields(index[6], 3)
        if not isinstance(profile, int) or len(decisions) not in {0, len(stacks)}:
            raise Refused("what the writer noted")
        tables.stands_for = [_stood_for(one) for one in stands_for]
    tables.stacks = dict(enumerate(map(_stack, stacks)))
    for segment in map(_segment, segments, places):
        tables.segments.setdefault(segment.stack, []).append(segment)
    for number, stream in enumerate(streams):
        length, plains, *columns = fields(stream, 5)
        digests = columns.pop()
        starts = np.cumsum([0, *plains]).tolist()
        tables.streams[number] = length
        tables.chunks[number] = [
            Chunk(start, plain, stored, place, digests[8 * k : 8 * k + 8])
            for k, (start, plain, stored, place) in enumerate(zip(starts, plains, *columns, strict=False))
        ]
    return tables


def section_tables(data: bytes, sections: Sequence[Section]) -> Tables:
    """Tables put together from what the sections say of themselves."""
    tables = Tables()
    numbered: dict[int, tuple[int, int]] = {}
    for section in sections:
        if section.kind == SERIES_PART:
            tables.parts.append((section.offset, 0))
        elif section.kind == SERIES_PARTS:
            found = fields(description(data, section)[0], 3)
            numbered.update((part, (section.offset, k)) for k, part in enumerate(found[2]))
        elif section.kind == STANDS_FOR:
            (found,) = fields(structure(payload(data, section, TABLE_LIMIT)), 1)
            tables.stands_for = [_stood_for(one) for one in found]
        elif section.kind in {SEGMENT, CHUNK, HEADER_BLOCK}:
            _add(tables, section, *description(data, section))
    tables.parts += [place for _, place in sorted(numbered.items())]
    for segments in tables.segments.values():
        segments.sort(key=lambda one: one.first)
    for chunks in tables.chunks.values():
        chunks.sort(key=lambda one: one.offset)
    return tables


def _add(tables: Tables, section: Section, found: Any, place: int) -> None:
    if section.kind == SEGMENT:
        segment = _segment(fields(found, 2)[0], place)
        tables.stacks[segment.stack] = _stack(found[1])
        tables.segments.setdefault(segment.stack, []).append(segment)
    elif section.kind == CHUNK:
        stream, length, offset, plain, stored, digest = fields(found, 6)
        tables.streams[stream] = length
        tables.chunks.setdefault(stream, []).append(Chunk(offset, plain, stored, place, digest))
    else:
        number, plain, digest, dictionary = fields(found, 4)
        block = Block(place, section.end - place, plain, digest, _dictionary(dictionary), *found[4:6])
        tables.blocks[number] = block
