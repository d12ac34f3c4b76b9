"""Header packs, read from `docs/format.md` alone: blocks, tables, UIDs; see `independent_reader`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.independent_codecs import Refused, unzstd
from tests.independent_columns import integers
from tests.independent_columns import texts as texts_of
from tests.independent_headers import Texts, no_texts, plain_block
from tests.independent_objects import (
    BLOCK_LIMIT,
    SERIES_PART,
    SERIES_PARTS,
    TABLE_LIMIT,
    Block,
    Pack,
    cut,
    description,
    digest,
    fields,
    payload,
    section_at,
    structure,
)


def uids_of(
    stored: Any, places: Any, rows: int, plain: Callable[[int], bytes]
) -> Callable[[int, int, int], str]:
    """Give the UID of a row, told where its header bytes begin."""
    if places is None:
        known = texts_of(stored, rows)
        return lambda row, _block, _offset: known[row]
    offsets, lengths = (integers(one, rows) for one in fields(places, 2))
    there = iter(texts_of(stored, lengths.count(0)))

    def uid(row: int, block: int, offset: int) -> str:
        if not lengths[row]:
            return next(there)
        if not 0 < lengths[row] <= 1024 or offsets[row] < 0:
            raise Refused("the place of a UID")
        return cut(plain(block), offset + offsets[row], lengths[row]).decode("ascii")

    return uid


def plain_bytes_of(pack: Pack, number: int, *, as_dictionary: bool = False, texts: Texts = no_texts) -> bytes:
    """Plain bytes of a header block, compared with its digest."""
    block: Block | None = pack.tables.blocks.get(number)
    if block is None:
        raise Refused(f"header block {number} is lost")
    if as_dictionary and block.dictionary:
        raise Refused("a dictionary behind a dictionary")
    stored = cut(pack.data, block.place, block.stored)
    if block.rows:
        plain = plain_block(stored, _base(pack, block.base), block.rows, block.plain, texts)
    elif block.plain > BLOCK_LIMIT:
        raise Refused("a header block")
    else:
        plain = unzstd(stored, block.plain, _dictionary_of(pack, block.dictionary))
    if digest(plain) != block.digest:
        raise Refused("digest of a header block")
    return plain


def _dictionary_of(pack: Pack, place: Sequence[int] | None) -> bytes:
    if not place:
        return b""
    block, offset, length = place
    return cut(plain_bytes_of(pack, block, as_dictionary=True), offset, length)


def _base(pack: Pack, number: int | None) -> bytes | None:
    """Payload of the block that has the templates."""
    if number is None:
        return None
    block = pack.tables.blocks.get(number)
    if block is None or not block.rows or block.base is not None:
        raise Refused("no templates")
    return cut(pack.data, block.place, block.stored)


def part_of(pack: Pack, place: int, number: int) -> list[Any]:
    """Structure of a series part, the UID places that 1.0 did not have among them."""
    section = section_at(pack.data, place)
    if section.kind == SERIES_PARTS:
        (dictionary, plain, _), start = (
            fields(description(pack.data, section)[0], 3),
            description(pack.data, section)[1],
        )
        if plain > TABLE_LIMIT:
            raise Refused("size of a section of series parts")
        frame = pack.data[start : section.end]
        part = structure(unzstd(frame, plain, _dictionary_of(pack, dictionary)))[number]
    elif section.kind == SERIES_PART:
        part = structure(payload(pack.data, section, TABLE_LIMIT))
    else:
        raise Refused("no series part where the index says so")
    fields(part, 24)
    return list(part)
