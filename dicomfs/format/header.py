"""Writing of header packs: headers and instance tables of one or more series sealed together.

Owns which instances share a block.  A block holds the header bytes of consecutive instances of a series, of
several series of a study, whose protocols have much in common, or of several small series: most series of
CR, DX and SR have one to four instances, and a pack of their own would cost more than they weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from dicomfs.errors import FormatError
from dicomfs.format import header_blocks
from dicomfs.format.digest import DIGEST_BYTES, digest64
from dicomfs.format.framing import SectionWriter
from dicomfs.format.head import new_head, write_head, write_index
from dicomfs.format.header_blocks import Block, ChooseText, make_blocks, make_joint_block, no_shared_text
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
from dicomfs.format.shared_texts import FEATURE as TEXTS
from dicomfs.format.version import FEATURE_COLUMNS, KIB, MAX_BLOCK, MIB, Section
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
"""Rows of a part that share a block with parts of the same study only; smaller ones do with any."""
_SHARED_ROWS, _SHARED_BYTES = 128, 2 * MIB
"""A shared block is written before it has more."""
LEAST_SHARING = 8 * KIB
"""Bytes of a header that may have text to share; such headers are in no block with those of other studies."""
_DICTIONARY_BYTES = 1 * MIB
"""Header bytes that tables are compressed against: those of their own rows, to be lost with them at most."""


_Row = tuple[int, SeriesPart, Sequence[bytes], int]


class _Shared:
    """A block that several parts share, being filled."""

    def __init__(self, number: int, study: int | None, most: tuple[int, int]) -> None:
        """``study`` is that of all parts, None where they may be of any; ``most`` are rows and bytes."""
        self.number, self.study, self._most = number, study, most
        self.size = self.rows = 0
        self.parts: list[_Row] = []
        """Number, part, headers and their place in the block, of each part."""

    @property
    def headers(self) -> list[Sequence[bytes]]:
        """Those of each part."""
        return [headers for _, _, headers, _ in self.parts]

    def has_room(self, headers: Sequence[bytes]) -> bool:
        """Whether these headers fit."""
        rows, size = self._most
        return self.rows + len(headers) <= rows and self.size + sum(map(len, headers)) <= size

    def add(self, number: int, part: SeriesPart, headers: Sequence[bytes]) -> None:
        """Take a part in."""
        self.parts.append((number, part, headers, self.size))
        self.size += sum(map(len, headers))
        self.rows += len(headers)


class HeaderPackWriter:
    """Appends series parts to ``file``, which must be empty.

    Not thread-safe.  Wrong input raises FormatError before anything of the part is written; an OSError of
    ``file`` makes the writer unusable.  Durability (fsync) is the caller's.
    """

    def __init__(
        self,
        file: BinaryIO,
        archive_id: bytes,
        features: Sequence[str] = (),
        choose: ChooseText = no_shared_text,
    ) -> None:
        """``choose`` gives shared texts, asked where the feature of that name is among ``features``."""
        self._choose = choose if TEXTS in features else no_shared_text
        self.parts: list[SeriesPart] = []
        """What was added, complete after ``finish``: ``packs`` names the shared texts, too."""
        self._head = new_head(PackKind.HEADER, archive_id, (FEATURE_COLUMNS, *features))
        self._writer = SectionWriter(file)
        self._blocks: dict[int, BlockRecord] = {}
        self._parts: list[PartSummaryRecord | None] = []
        """None: in a shared section, not written yet."""
        self._small: _Shared | None = None
        self._study: _Shared | None = None
        self._next = 0
        """Number of the next block."""
        self._summary: PackSummary | None = None
        write_head(self._writer, self._head)

    @property
    def size(self) -> int:
        """Bytes written so far; shared blocks and the index are not among them before ``finish``."""
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
        self.parts.append(part)
        if not headers:
            self._write_parts([(number, encode_part(part, (), ()))], None, b"")
        elif (
            len(headers) < _OWN_ROWS
            and sum(map(len, headers)) <= _SHARED_BYTES
            and not (self._choose is not no_shared_text and may_share_text(headers))
        ):
            if self._small is None or not self._small.has_room(headers):
                self._flush_small()
                self._small = self._opened(None, (min(_SHARED_ROWS, _block_limits()[0]), _SHARED_BYTES))
            self._small.add(number, part, headers)
        elif len(headers) <= (most := _block_limits())[0] and sum(map(len, headers)) <= most[1]:
            study = part.study.number
            if self._study is None or self._study.study != study or not self._study.has_room(headers):
                self._flush_study()
                self._study = self._opened(study, most)
            self._study.add(number, part, headers)
        else:
            runs, part = self._write_blocks(part, headers)
            self.parts[number] = part
            self._write_parts([(number, encode_part(part, runs, headers))], None, b"")

    def finish(self) -> PackSummary:
        """Write what is left, index and trailer; the pack is complete."""
        self._flush_study()
        self._flush_small()
        blocks = tuple(self._blocks[number] for number in range(self._next))
        parts = tuple(part for part in self._parts if part is not None)
        index = HeaderIndexRecord(self._head, self._writer.sections, blocks, parts)
        digest = write_index(self._writer, self._head, index)
        self._summary = PackSummary(self._writer.sha256, self._writer.size, PackKind.HEADER, digest)
        return self._summary

    def _write_blocks(self, part: SeriesPart, headers: Sequence[bytes]) -> tuple[list[Run], SeriesPart]:
        runs: list[Run] = []
        for block in make_blocks(headers, self._chooser(headers)):
            runs.append((self._next, 0, block.rows))
            self._write(self._next, block)
            part = _needing(part, block)
            self._next += 1
        return runs, part

    def _chooser(self, headers: Sequence[bytes]) -> ChooseText:
        return self._choose if may_share_text(headers) else no_shared_text

    def _opened(self, study: int | None, most: tuple[int, int]) -> _Shared:
        self._next += 1
        return _Shared(self._next - 1, study, most)

    def _flush_study(self) -> None:
        """Write the block of larger parts of a study and their tables, if there are any."""
        shared, self._study = self._study, None
        if shared is None:
            return
        choose = self._chooser([header for each in shared.headers for header in each])
        if len(shared.parts) == 1:
            (block,) = make_blocks(shared.headers[0], choose)
        else:
            block = make_joint_block(shared.headers, choose)
        self._write(shared.number, block)
        if shared.rows < _OWN_ROWS and block.text is None:
            self._write_tables(shared, block)
            return
        # Tables are to be read without any other object.
        for number, record in self._records(shared, block):
            self._write_parts([(number, record)], None, b"")

    def _flush_small(self) -> None:
        """Write the block of small parts and their tables, if there are any."""
        shared, self._small = self._small, None
        if shared is None:
            return
        # Of several patients: no text is shared that one of them has alone.
        (block,) = make_blocks([header for each in shared.headers for header in each])
        self._write(shared.number, block)
        self._write_tables(shared, block)

    def _write_tables(self, shared: _Shared, block: Block) -> None:
        """Write the tables of small parts as one section, compressed against the block."""
        dictionary = block.plain[:_DICTIONARY_BYTES]
        place = DictionaryPlace(shared.number, 0, len(dictionary))
        self._write_parts(self._records(shared, block), place, dictionary)

    def _records(self, shared: _Shared, block: Block) -> list[tuple[int, PartRecord]]:
        """Numbers and tables of the parts that share a block."""
        found = []
        for number, part, headers, offset in shared.parts:
            self.parts[number] = _needing(part, block)
            run = (shared.number, offset, len(headers))
            found.append((number, encode_part(self.parts[number], [run], headers)))
        return found

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


def may_share_text(headers: Sequence[bytes]) -> bool:
    """Whether one of these headers is so long that a shared text may be worth an object."""
    return max(map(len, headers), default=0) >= LEAST_SHARING


def _needing(part: SeriesPart, block: Block) -> SeriesPart:
    """The part, with the shared text of one of its blocks among what it needs."""
    if block.text is None:
        return part
    return replace(part, packs={**part.packs, block.text.key: block.text.index_digest})


def _block_limits() -> tuple[int, int]:
    """Rows and bytes of one block at most."""
    return header_blocks.BLOCK_ROWS, header_blocks.BLOCK_BYTES


def _check_readable(part: SeriesPart, headers: Sequence[bytes]) -> None:
    """Decode the table as a reader will, before it is written: what can't be read must not be sealed."""
    stored = decode_wire(encode_wire(encode_part(part, (), headers)), PartRecord, _WRITING)
    if decode_part(stored, _WRITING, headers.__getitem__) != part:
        raise FormatError(_WRITING, "the table does not come back as it was given")
