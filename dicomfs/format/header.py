"""Writing of header packs: headers and instance tables of one or more series sealed together.

Owns which instances share a block.  A block holds the header bytes of consecutive instances of a series, or
those of several small series: most series of CR, DX and SR have one to four instances, and a pack of their
own would cost more than they weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from dicomfs.errors import FormatError
from dicomfs.format.digest import DIGEST_BYTES, digest64
from dicomfs.format.framing import SectionWriter
from dicomfs.format.head import new_head, write_head, write_index
from dicomfs.format.header_blocks import Block, make_blocks
from dicomfs.format.header_index import (
    BlockDescription,
    BlockRecord,
    DictionaryPlace,
    HeaderIndexRecord,
    PartSummaryRecord,
)
from dicomfs.format.header_parts import encode_parts
from dicomfs.format.header_reader import HeaderPackReader, PartSummary
from dicomfs.format.header_table import (
    InstanceEntry,
    PartRecord,
    Run,
    SeriesPart,
    decode_part,
    encode_part,
)
from dicomfs.format.header_table import features as needed_features
from dicomfs.format.keys import pack_key
from dicomfs.format.pack import PackSummary
from dicomfs.format.version import FEATURE_COLUMNS, MAX_BLOCK, MIB, Section
from dicomfs.format.wire import decode_wire, describe, encode_wire
from dicomfs.model import ObjectKey, PackKind

__all__ = [
    "HeaderPackReader",
    "HeaderPackWriter",
    "InstanceEntry",
    "PartSummary",
    "SeriesPart",
    "needed_features",
]

_WRITING = "header pack being written"


_OWN_ROWS = 16
"""Rows of a part that get blocks of their own; those of smaller parts are gathered."""
_SHARED_ROWS, _SHARED_BYTES = 128, 2 * MIB
"""A shared block is written before it has more."""
_DICTIONARY_BYTES = 1 * MIB
"""Header bytes that tables are compressed against: those of their own rows, to be lost with them at most."""


class _Shared:
    """The block that small parts share, being filled."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.headers: list[bytes] = []
        self.size = 0
        self.parts: list[tuple[int, PartRecord]] = []
        """Numbers and tables of the parts."""


class HeaderPackWriter:
    """Appends series parts to ``file``, which must be empty.

    Not thread-safe.  Wrong input raises FormatError before anything of the part is written; an OSError of
    ``file`` makes the writer unusable.  Durability (fsync) is the caller's.
    """

    def __init__(self, file: BinaryIO, archive_id: bytes, features: Sequence[str] = ()) -> None:
        self._head = new_head(PackKind.HEADER, archive_id, (FEATURE_COLUMNS, *features))
        self._writer = SectionWriter(file)
        self._blocks: dict[int, BlockRecord] = {}
        self._parts: list[PartSummaryRecord | None] = []
        """None: in the shared section, not written yet."""
        self._shared: _Shared | None = None
        self._next = 0
        """Number of the next block."""
        self._summary: PackSummary | None = None
        write_head(self._writer, self._head)

    @property
    def size(self) -> int:
        """Bytes written so far; the shared block and the index are not among them before ``finish``."""
        return self._writer.size

    @property
    def key(self) -> ObjectKey:
        """Object key of the finished pack; FormatError before ``finish``."""
        if self._summary is None:
            raise FormatError(_WRITING, "it has no key before it is finished")
        return pack_key(PackKind.HEADER, self._summary.sha256)

    def add_part(self, part: SeriesPart, headers: Sequence[bytes]) -> None:
        """Append a part; ``headers`` are the header bytes of its entries, 4 MiB at most each.

        FormatError when a header does not have the length of its entry's header pieces, and for values that
        a reader would refuse.
        """
        for entry, header in zip(part.entries, headers, strict=True):
            if len(header) != entry.header_bytes or len(header) > MAX_BLOCK:
                raise FormatError(_WRITING, f"header of {len(header)} bytes, {entry.header_bytes} expected")
        missing = set(needed_features([part])) - set(self._head.features)
        if missing:
            raise FormatError(_WRITING, f"its head lacks the features {sorted(missing)}")
        _check_readable(part, headers)
        number = len(self._parts)
        self._parts.append(None)
        if not headers:
            self._write_parts([(number, encode_part(part, (), ()))], None, b"")
        elif len(headers) >= _OWN_ROWS or sum(map(len, headers)) > _SHARED_BYTES:
            runs = self._write_blocks(headers)
            self._write_parts([(number, encode_part(part, runs, headers))], None, b"")
        else:
            shared = self._room(headers)
            record = encode_part(part, [(shared.number, shared.size, len(headers))], headers)
            shared.headers += headers
            shared.size += sum(map(len, headers))
            shared.parts.append((number, record))

    def finish(self) -> PackSummary:
        """Write what is left, index and trailer; the pack is complete."""
        self._flush()
        blocks = tuple(self._blocks[number] for number in range(self._next))
        parts = tuple(part for part in self._parts if part is not None)
        index = HeaderIndexRecord(self._head, self._writer.sections, blocks, parts)
        digest = write_index(self._writer, self._head, index)
        self._summary = PackSummary(self._writer.sha256, self._writer.size, PackKind.HEADER, digest)
        return self._summary

    def _write_blocks(self, headers: Sequence[bytes]) -> list[Run]:
        runs: list[Run] = []
        for block in make_blocks(headers):
            runs.append((self._next, 0, block.rows))
            self._write(self._next, block)
            self._next += 1
        return runs

    def _room(self, headers: Sequence[bytes]) -> _Shared:
        """The block that small parts share, with room for these headers."""
        shared = self._shared
        if shared is not None and (
            shared.size + sum(map(len, headers)) > _SHARED_BYTES
            or len(shared.headers) + len(headers) > _SHARED_ROWS
        ):
            self._flush()
        if self._shared is None:
            self._shared = _Shared(self._next)
            self._next += 1
        return self._shared

    def _flush(self) -> None:
        """Write the shared block and the tables of its parts, if there are any."""
        shared = self._shared
        if shared is None:
            return
        for block in make_blocks(shared.headers):
            self._write(shared.number, block)
        dictionary = b"".join(shared.headers)[:_DICTIONARY_BYTES]
        self._write_parts(shared.parts, DictionaryPlace(shared.number, 0, len(dictionary)), dictionary)
        self._shared = None

    def _write_parts(
        self, parts: Sequence[tuple[int, PartRecord]], place: DictionaryPlace | None, dictionary: bytes
    ) -> None:
        numbers, records = [number for number, _ in parts], [record for _, record in parts]
        offset = self._writer.size
        self._writer.add(Section.SERIES_PARTS, encode_parts(records, numbers, place, dictionary))
        length = self._writer.size - offset
        for number, record in parts:
            self._parts[number] = PartSummaryRecord(
                record.patient.number,
                record.study.number,
                record.series.number,
                record.part,
                record.rows,
                offset,
                length,
            )

    def _write(self, number: int, block: Block) -> None:
        digest = digest64(block.plain).to_bytes(DIGEST_BYTES, "little")
        base = None if block.base is None else number - block.base
        described = describe(BlockDescription(number, len(block.plain), digest, None, block.rows, base))
        place = self._writer.add(Section.HEADER_BLOCK, (described, block.payload)) + len(described)
        self._blocks[number] = BlockRecord(
            place, len(block.payload), len(block.plain), digest, None, block.rows, base
        )


def _check_readable(part: SeriesPart, headers: Sequence[bytes]) -> None:
    """Decode the table as a reader will, before it is written: what can't be read must not be sealed."""
    stored = decode_wire(encode_wire(encode_part(part, (), headers)), PartRecord, _WRITING)
    if decode_part(stored, _WRITING, headers.__getitem__) != part:
        raise FormatError(_WRITING, "the table does not come back as it was given")
