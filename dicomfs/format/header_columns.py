"""Blocks of columns: the payload of a header block in its second form, taken apart.

Owns the streams of such a payload and their limits.  What templates and columns are, say `templates` and
`tokens`; how a block is made, `header_blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicomfs.errors import DamagedError
from dicomfs.format.compression import compress, compress_lzma, decompress, decompress_lzma
from dicomfs.format.dictionaries import DICTIONARY, dictionary
from dicomfs.format.templates import Assembler, TemplateSet, read_templates
from dicomfs.format.tokens import Streams
from dicomfs.format.varints import Numbers, put_unsigned
from dicomfs.format.vectors import VectorReader
from dicomfs.format.version import MAX_STREAM, MIB

STORED, ZSTD, LZMA, ZSTD_DICTIONARY = 0, 1, 2, 16
"""How a stream is compressed; from 16 on with the shipped dictionary of number method - 16."""
_LEVEL = 19
_LZMA_LIMIT = 2 * MIB
"""Longer streams are of headers that have little in common: LZMA would be slow and gain little."""
_TEXT_CONTEXTS = ((3, 0, 0), (4, 0, 0), (2, 0, 0))
_BINARY_CONTEXTS = ((0, 0, 0), (3, 0, 0), (1, 0, 0))


@dataclass(frozen=True, slots=True)
class BlockStreams:
    """The plain streams of a block."""

    program: bytes
    """Templates, then the forms of all columns."""
    text: bytes
    """Literals of the templates, then strings."""
    numbers: bytes
    """Planes of vectors."""
    raw: bytes
    """What has no structure."""

    def pack(self) -> bytes:
        """The stored form: each stream compressed as it becomes smallest."""
        out = bytearray()
        bodies = []
        for plain, contexts, primed in (
            (self.program, _BINARY_CONTEXTS, True),
            (self.text, _TEXT_CONTEXTS, True),
            (self.numbers, _BINARY_CONTEXTS, False),
            (self.raw, _BINARY_CONTEXTS, False),
        ):
            method, stored = _smallest(plain, contexts, primed=primed)
            out.append(method)
            put_unsigned(out, len(plain))
            if method != STORED:
                put_unsigned(out, len(stored))
            bodies.append(stored)
        return bytes(out) + b"".join(bodies)


def _smallest(plain: bytes, contexts: tuple[tuple[int, int, int], ...], *, primed: bool) -> tuple[int, bytes]:
    forms = [(STORED, plain)]
    if plain:
        forms.append((ZSTD, compress(plain, _LEVEL)))
        if len(plain) <= _LZMA_LIMIT:
            forms += [(LZMA, compress_lzma(plain, one)) for one in contexts]
        if primed:
            forms.append((ZSTD_DICTIONARY + DICTIONARY, compress(plain, _LEVEL, dictionary(DICTIONARY))))
    return min(forms, key=lambda form: len(form[1]))


def unpack(payload: bytes, artefact: str) -> BlockStreams:
    """The streams of a payload; DamagedError, UnsupportedFeature for an unknown dictionary."""
    # Methods and lengths are few: a payload that has none of them ends early.
    numbers = Numbers(payload, artefact)
    heads = []
    for _ in range(4):
        method, plain = numbers.unsigned(255), numbers.unsigned(MAX_STREAM)
        heads.append((method, plain, plain if method == STORED else numbers.unsigned(2 * MAX_STREAM)))
    streams = [_plain(method, numbers.take(stored), plain, artefact) for method, plain, stored in heads]
    numbers.finish()
    return BlockStreams(*streams)


def _plain(method: int, stored: bytes, plain: int, artefact: str) -> bytes:
    if method == STORED:
        return stored
    if method == ZSTD:
        return decompress(stored, plain, artefact)
    if method == LZMA:
        return decompress_lzma(stored, plain, artefact)
    if method >= ZSTD_DICTIONARY:
        return decompress(stored, plain, artefact, dictionary(method - ZSTD_DICTIONARY, artefact))
    raise DamagedError(artefact, "unknown compression of a stream")


def templates_of(streams: BlockStreams, artefact: str) -> TemplateSet:
    """The templates that a block brings along; DamagedError."""
    return read_templates(Numbers(streams.program, artefact), Numbers(streams.text, artefact), artefact)


def assemble(
    streams: BlockStreams, templates: TemplateSet | None, rows: int, plain: int, artefact: str
) -> bytes:
    """The plain bytes of a block, ``plain`` of them; ``templates`` are those of another block, if any.

    DamagedError for everything that does not come out even.
    """
    program, text = Numbers(streams.program, artefact), Numbers(streams.text, artefact)
    if templates is None:
        templates = read_templates(program, text, artefact)
    numbers, raw = Numbers(streams.numbers, artefact), Numbers(streams.raw, artefact)
    vectors = VectorReader(program, numbers, artefact)
    found = Assembler(templates, Streams(program, text, raw, vectors, artefact, plain)).rows(rows)
    for stream in (program, text, numbers, raw):
        stream.finish()
    whole = b"".join(found)
    if len(whole) != plain:
        raise DamagedError(artefact, f"header block of {len(whole)} bytes instead of {plain}")
    return whole
