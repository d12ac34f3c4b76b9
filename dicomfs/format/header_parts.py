"""Sections that hold the tables of several series parts.

Owns their stored form.  A table repeats what its headers say of patient, study and series, and those of small
series repeat each other's structure: compressed together, against the header bytes of one block, they cost
little more than their digests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from dicomfs.errors import DamagedError
from dicomfs.format.compression import compress, decompress
from dicomfs.format.header_index import DictionaryPlace
from dicomfs.format.header_table import PartRecord
from dicomfs.format.version import MAX_DESCRIPTION, MAX_INDEX
from dicomfs.format.wire import DESCRIPTION_PREFIX, decode_wire, describe, encode_wire

_LEVEL = 19


class PartsDescription(msgspec.Struct, frozen=True, array_like=True):
    """What stands in front of the zstd frame in a SERIES_PARTS section."""

    dictionary: DictionaryPlace | None
    plain: Annotated[int, msgspec.Meta(ge=0, le=MAX_INDEX)]
    numbers: tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)], ...]
    """Number of each part in the pack, increasing."""


def encode_parts(
    records: Sequence[PartRecord], numbers: Sequence[int], place: DictionaryPlace | None, dictionary: bytes
) -> tuple[bytes, bytes]:
    """Description and frame of a section; ``dictionary`` are the bytes at ``place``."""
    plain = encode_wire(list(records))
    packed = compress(plain, _LEVEL, dictionary if place is not None else None)
    return describe(PartsDescription(place, len(plain), tuple(numbers))), packed


def decode_parts(
    payload: bytes, dictionary: Callable[[DictionaryPlace], bytes], artefact: str
) -> tuple[tuple[int, ...], tuple[PartRecord, ...]]:
    """Numbers and tables from the payload of a section; DamagedError."""
    length = int.from_bytes(payload[:DESCRIPTION_PREFIX], "little")
    if length > min(MAX_DESCRIPTION, len(payload) - DESCRIPTION_PREFIX):
        raise DamagedError(artefact, "impossible description length")
    start = DESCRIPTION_PREFIX + length
    found = decode_wire(payload[DESCRIPTION_PREFIX:start], PartsDescription, artefact)
    known = None if found.dictionary is None else dictionary(found.dictionary)
    plain = decompress(payload[start:], found.plain, artefact, known)
    records = decode_wire(plain, tuple[PartRecord, ...], artefact)
    if len(records) != len(found.numbers):
        raise DamagedError(artefact, "a section has another number of series parts")
    return found.numbers, records
