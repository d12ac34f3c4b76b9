"""Texts that headers of a batch share with others: found by fingerprint, compared, made where there is none.

Owns which text a header block is compressed against.  A text is taken only where every piece of it is in the
block (docs/format.md, shared texts): then it is as much of one patient as of the other, and forgetting either
leaves nothing in it that the other does not have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from dicomfs.errors import DicomfsError
from dicomfs.format.compression import compress
from dicomfs.format.digest import digest64
from dicomfs.format.header_parse import Node, parse_header
from dicomfs.format.shared_texts import MAX_TEXT, SharedText, TextRef, is_part_of, pieces
from dicomfs.format.text_pack import read_text
from dicomfs.index.frames import sampled
from dicomfs.model import ObjectKey
from dicomfs.packing.seal import Staged, Staging
from dicomfs.packs import PackSource

logger = logging.getLogger(__name__)

_LONG_VALUE = 128
"""Bytes of a value that is worth a look: names, dates and UIDs are shorter."""
_LEAST_BYTES = 4096
"""What a new text takes compressed, at least: an object is a file, a record, and a key where it is sealed."""
_LEVEL = 12
_MOST_TEXTS = 8
"""Texts that are compared with one block."""

Find = Callable[[set[int]], list[ObjectKey]]
"""Text packs that may hold pieces with these fingerprints, the likeliest first."""


def text_fingerprints(text: bytes) -> set[int]:
    """The fingerprints under which a text is listed."""
    return sampled(map(digest64, pieces(text)))


class BatchTexts:
    """Chooses the shared texts of one header pack; new ones are staged."""

    def __init__(self, find: Find, source: PackSource, staging: Staging) -> None:
        self._find, self._source, self._staging = find, source, staging
        self._known: dict[ObjectKey, SharedText | None] = {}
        self._made: dict[ObjectKey, Staged] = {}

    def staged(self, keys: Sequence[ObjectKey]) -> list[Staged]:
        """Those of these that are new."""
        return [self._made[key] for key in keys if key in self._made]

    def choose(self, text: bytes, headers: Sequence[bytes]) -> SharedText | None:
        """A shared text of which all is in ``text``; None where no object is worth it.

        One that is there already is taken where it covers half of what ``text`` has in long values.
        Otherwise a new one is made of what is in another one as well, where that is half of it, else of all.

        Raises:
            TierFull: the disk is full.
        """
        ours = _long_pieces(text, headers)
        if sum(map(len, ours)) < _LEAST_BYTES:
            return None
        candidates = list(self._candidates(ours))
        whole = [one for one in candidates if is_part_of(one.data, text)]
        best = max(whole, key=lambda one: len(one.data), default=None)
        half = sum(map(len, ours)) // 2
        if best is not None and len(best.data) >= half:
            return best
        return self._make(_most_in_common(ours, candidates, half)) or best

    def _candidates(self, ours: Sequence[bytes]) -> Iterator[SharedText]:
        found = [*self._made, *self._find(sampled(map(digest64, ours)))]
        for key in list(dict.fromkeys(found))[:_MOST_TEXTS]:
            if key not in self._known:
                self._known[key] = self._read(key)
            known = self._known[key]
            if known is not None:
                yield known

    def _read(self, key: ObjectKey) -> SharedText | None:
        try:
            pack = self._source.pack(key)
            if pack.index_digest is None:
                return None
            return SharedText(TextRef(key, pack.index_digest), read_text(pack))
        except DicomfsError as problem:
            logger.warning("text not referred to", extra={"object": key, "reason": str(problem)})
            return None

    def _make(self, of: Sequence[bytes]) -> SharedText | None:
        data = _joined(of)
        if len(compress(data, _LEVEL)) < _LEAST_BYTES:
            return None
        staged = self._staging.write_text(data)
        made = SharedText(TextRef(staged.key, staged.summary.index_digest), data)
        self._made[staged.key], self._known[staged.key] = staged, made
        return made


def _long_pieces(text: bytes, headers: Sequence[bytes]) -> list[bytes]:
    """The pieces of a text that are in long values of these headers, each once, in their order."""
    inside = {
        piece for header in headers for value in _long_values(parse_header(header)) for piece in pieces(value)
    }
    return [piece for piece in dict.fromkeys(pieces(text)) if piece in inside]


def _long_values(node: Node) -> Iterator[bytes]:
    for child in node.children() or []:
        if isinstance(child.key, tuple) and child.key[-1] == "group":
            yield from _long_values(child)
        elif isinstance(child.key, tuple) and len(child.content) >= _LONG_VALUE:
            yield child.content


def _most_in_common(ours: Sequence[bytes], texts: Sequence[SharedText], half: int) -> Sequence[bytes]:
    """Of our pieces those that one of the texts has, too, where that is half of them; else all."""
    best = ours
    most = half
    for one in texts:
        theirs = set(pieces(one.data))
        common = [piece for piece in ours if piece in theirs]
        size = sum(map(len, common))
        if size >= most:
            best, most = common, size + 1
    return best


def _joined(of: Sequence[bytes]) -> bytes:
    found = bytearray()
    for piece in of:
        if len(found) + len(piece) > MAX_TEXT:
            break
        found += piece
    return bytes(found)
