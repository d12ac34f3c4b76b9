"""Blocks of columns: the payload of a header block in its second form, taken apart.

Owns the streams of such a payload and their limits.  What templates and columns are, say `templates` and
`tokens`; how a block is made, `header_blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dicomfs.errors import DamagedError
from dicomfs.format.compression import compress, compress_lzma, decompress, decompress_lzma
from dicomfs.format.dictionaries import DICTIONARY, dictionary
from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.keys import pack_key, parse_pack_key
from dicomfs.format.shared_texts import MAX_TEXT, ReadText, SharedText, TextRef, no_text
from dicomfs.format.templates import Assembler, TemplateSet, read_templates
from dicomfs.format.tokens import Streams
from dicomfs.format.varints import Numbers, put_unsigned
from dicomfs.format.vectors import VectorReader
from dicomfs.format.version import MAX_STREAM, MIB
from dicomfs.model import PackKind

STORED, ZSTD, LZMA, ZSTD_TEXT, ZSTD_DICTIONARY = 0, 1, 2, 3, 16
"""How a stream is compressed; from 16 on with the shipped dictionary of number method - 16."""
_FIRST = 1
"""The shipped dictionary that stands in front of a shared text."""
_REF_BYTES = 32 + DIGEST_BYTES
"""SHA-256 of a text pack, digest of its plain index."""
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

    def pack(self, shared: SharedText | None = None) -> bytes:
        """The stored form: each stream compressed as it becomes smallest, the text with ``shared`` if any."""
        out = bytearray()
        bodies = []
        for plain, contexts, primed in (
            (self.program, _BINARY_CONTEXTS, True),
            (self.text, _TEXT_CONTEXTS, True),
            (self.numbers, _BINARY_CONTEXTS, False),
            (self.raw, _BINARY_CONTEXTS, False),
        ):
            if shared is not None and plain is self.text:
                method, stored = ZSTD_TEXT, compress(plain, _LEVEL, dictionary(_FIRST) + shared.data)
            else:
                method, stored = _smallest(plain, contexts, primed=primed)
            out.append(method)
            put_unsigned(out, len(plain))
            if method != STORED:
                put_unsigned(out, len(stored))
            if method == ZSTD_TEXT and shared is not None:
                out += _put_ref(shared.ref)
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


def unpack(payload: bytes, artefact: str, read_text: ReadText = no_text) -> BlockStreams:
    """The streams of a payload; DamagedError, UnsupportedFeature for an unknown dictionary.

    Raises as ``read_text`` does where a stream needs a shared text.
    """
    # Methods and lengths are few: a payload that has none of them ends early.
    numbers = Numbers(payload, artefact)
    heads = _heads(numbers)
    bodies = [(head, numbers.take(head.stored)) for head in heads]
    numbers.finish()
    return BlockStreams(*(_plain(head, stored, artefact, read_text) for head, stored in bodies))


def text_of(payload: bytes, artefact: str) -> TextRef | None:
    """The shared text that a payload needs, None for most; DamagedError."""
    return next((head.text for head in _heads(Numbers(payload, artefact)) if head.text is not None), None)


def pack_text(plain: bytes) -> bytes:
    """One text on its own, as a stream of a block with its head."""
    method, stored = _smallest(plain, _TEXT_CONTEXTS, primed=True)
    out = bytearray([method])
    put_unsigned(out, len(plain))
    if method != STORED:
        put_unsigned(out, len(stored))
    return bytes(out) + stored


def unpack_text(payload: bytes, artefact: str) -> bytes:
    """What `pack_text` stored, at most 1 MiB; DamagedError, UnsupportedFeature for an unknown dictionary."""
    numbers = Numbers(payload, artefact)
    head = _head(numbers, MAX_TEXT)
    plain = _plain(head, numbers.take(head.stored), artefact, no_text)
    numbers.finish()
    return plain


class _StreamHead(NamedTuple):
    method: int
    plain: int
    stored: int
    text: TextRef | None


def _heads(numbers: Numbers) -> list[_StreamHead]:
    return [_head(numbers, MAX_STREAM) for _ in range(4)]


def _head(numbers: Numbers, most: int) -> _StreamHead:
    method, plain = numbers.unsigned(255), numbers.unsigned(most)
    stored = plain if method == STORED else numbers.unsigned(2 * most)
    text = _ref(numbers.take(_REF_BYTES)) if method == ZSTD_TEXT else None
    return _StreamHead(method, plain, stored, text)


def _put_ref(ref: TextRef) -> bytes:
    return parse_pack_key(ref.key)[1] + ref.index_digest.to_bytes(DIGEST_BYTES, "little")


def _ref(stored: bytes) -> TextRef:
    key = pack_key(PackKind.TEXT, stored[:-DIGEST_BYTES].hex())
    return TextRef(key, int.from_bytes(stored[-DIGEST_BYTES:], "little"))


def _plain(head: _StreamHead, stored: bytes, artefact: str, read_text: ReadText) -> bytes:
    method, plain, _, text = head
    if method == STORED:
        return stored
    if text is not None:
        return decompress(stored, plain, artefact, dictionary(_FIRST, artefact) + read_text(text))
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
