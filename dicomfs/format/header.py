"""Writing of header packs: headers and instance tables of one or more series sealed together.

Owns how header bytes are gathered into blocks.  A block holds the header bytes of consecutive instances, of
several small series where these come one after the other: most series of CR, DX and SR have one to four
instances, and a pack of their own would cost more than they weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from dicomfs.errors import FormatError
from dicomfs.format.compression import compress
from dicomfs.format.digest import DIGEST_BYTES, digest64
from dicomfs.format.framing import SectionWriter
from dicomfs.format.head import new_head, write_head, write_index
from dicomfs.format.header_index import (
    BlockDescription,
    BlockRecord,
    DictionaryPlace,
    HeaderIndexRecord,
    PartSummaryRecord,
)
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
from dicomfs.format.version import MAX_BLOCK, MAX_CHUNK, Section
from dicomfs.format.wire import decode_wire, describe, encode_wire, pack_section
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
_LEVEL = 19


class _Block:
    """The block being filled."""

    def __init__(self, number: int, dictionary: DictionaryPlace | None, prefix: bytes) -> None:
        self.number = number
        self.dictionary = dictionary
        self.prefix = prefix
        """The bytes that ``dictionary`` points to."""
        self.headers: list[bytes] = []
        self.size = 0


class HeaderPackWriter:
    """Appends series parts to ``file``, which must be empty.

    Not thread-safe.  Wrong input raises FormatError before anything of the part is written; an OSError of
    ``file`` makes the writer unusable.  Durability (fsync) is the caller's.
    """

    def __init__(self, file: BinaryIO, archive_id: bytes, features: Sequence[str] = ()) -> None:
        self._head = new_head(PackKind.HEADER, archive_id, tuple(features))
        self._writer = SectionWriter(file)
        self._blocks: list[BlockRecord] = []
        self._parts: list[PartSummaryRecord] = []
        self._open = _Block(0, None, b"")
        self._summary: PackSummary | None = None
        write_head(self._writer, self._head)

    @property
    def size(self) -> int:
        """Bytes written so far; the open block and the index are not among them before ``finish``."""
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
        _check_readable(part)
        record = encode_part(part, self._place(headers))
        offset = self._writer.size
        pack_section(self._writer, Section.SERIES_PART, encode_wire(record), _LEVEL)
        self._parts.append(
            PartSummaryRecord(
                part.patient.number,
                part.study.number,
                part.series.number,
                part.part,
                len(part.entries),
                offset,
                self._writer.size - offset,
            )
        )

    def finish(self) -> PackSummary:
        """Write what is left, index and trailer; the pack is complete."""
        self._flush()
        index = HeaderIndexRecord(self._head, self._writer.sections, tuple(self._blocks), tuple(self._parts))
        digest = write_index(self._writer, self._head, index)
        self._summary = PackSummary(self._writer.sha256, self._writer.size, PackKind.HEADER, digest)
        return self._summary

    def _place(self, headers: Sequence[bytes]) -> list[Run]:
        """Put the headers into blocks; returns where they lie."""
        if self._open.dictionary is not None:
            # Only blocks without dictionary hold the start of a part: no dictionary lies behind another.
            self._flush()
        runs: list[Run] = []
        first = DictionaryPlace(self._open.number, self._open.size, 0)
        for header in headers:
            if self._open.size + len(header) > MAX_BLOCK:
                self._flush()
                self._open.dictionary, self._open.prefix = _dictionary(first, headers[0], bool(runs))
            if not runs:
                first = DictionaryPlace(self._open.number, self._open.size, 0)
            if runs and runs[-1][0] == self._open.number:
                runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
            else:
                runs.append((self._open.number, self._open.size, 1))
            self._open.headers.append(header)
            self._open.size += len(header)
        return runs

    def _flush(self) -> None:
        """Write the open block, if there is anything in it, and open the next one."""
        block = self._open
        if not block.headers:
            block.dictionary, block.prefix = None, b""
            return
        plain = b"".join(block.headers)
        packed = compress(plain, _LEVEL, block.prefix)
        digest = digest64(plain).to_bytes(DIGEST_BYTES, "little")
        description = BlockDescription(block.number, len(plain), digest, block.dictionary)
        described = describe(description)
        place = self._writer.add(Section.HEADER_BLOCK, (described, packed)) + len(described)
        self._blocks.append(BlockRecord(place, len(packed), len(plain), digest, block.dictionary))
        self._open = _Block(block.number + 1, None, b"")


def _dictionary(first: DictionaryPlace, header: bytes, started: bool) -> tuple[DictionaryPlace | None, bytes]:
    if not started or not header:
        return None, b""
    prefix = header[:MAX_CHUNK]
    return DictionaryPlace(first.block, first.offset, len(prefix)), prefix


def _check_readable(part: SeriesPart) -> None:
    """Decode the table as a reader will, before it is written: what can't be read must not be sealed."""
    stored = decode_wire(encode_wire(encode_part(part, ())), PartRecord, _WRITING)
    if decode_part(stored, _WRITING) != part:
        raise FormatError(_WRITING, "the table does not come back as it was given")
