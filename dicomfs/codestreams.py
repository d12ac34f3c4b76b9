"""Codestreams made anew: a frame or a range of a stream and a recipe become the bytes that a file held.

Owns the check of what was made, and its cache: a codestream is made whole, however small the range that is
read.  Knows nothing of files.  May be called from any thread.
"""

from __future__ import annotations

import xxhash

from dicomfs.codec.bitstream.registry import MAX_RAW, write_frame, write_transcoded
from dicomfs.decoded import BytesCache
from dicomfs.errors import DamagedError, MismatchError
from dicomfs.frames import FrameReader
from dicomfs.model import CodedPiece, TranscodedPiece
from dicomfs.packs import PackSource

CodestreamPiece = CodedPiece | TranscodedPiece
_CACHE_BYTES = 64 << 20


class CodestreamReader:
    """Makes codestreams, single-flight, into a bounded cache."""

    def __init__(self, frames: FrameReader, source: PackSource, cache_bytes: int = _CACHE_BYTES) -> None:
        self._frames, self._source = frames, source
        self._made: BytesCache[tuple[CodestreamPiece, bytes]] = BytesCache(cache_bytes)

    def ready(self, piece: CodestreamPiece, recipe: bytes) -> bytes | None:
        """The codestream if it is made already; never blocks for long."""
        return self._made.get((piece, recipe))

    def fetch(self, piece: CodestreamPiece, recipe: bytes) -> bytes:
        """The codestream, checked.

        Raises:
            TierError, FormatError, CodecError: its source cannot be had, or does not fit the recipe.
            MismatchError: other bytes come out than were packed.
        """
        key = (piece, recipe)
        return self._made.fetch(key, key, lambda: {key: self._make(piece, recipe)})

    def _make(self, piece: CodestreamPiece, recipe: bytes) -> bytes:
        if isinstance(piece, CodedPiece):
            layout = self._frames.stack(piece.pack, piece.stack).layout
            if layout.frame_bytes > MAX_RAW:
                raise DamagedError(piece.pack, "has a frame too large for a codestream")
            made = write_frame(piece.method, self._frame(piece, layout.frame_bytes), layout, recipe)
        else:
            stored = self._source.pack(piece.pack).read_stream(piece.stream, piece.offset, piece.stored)
            if len(stored) != piece.stored:
                raise DamagedError(piece.pack, "has a shorter stream than an instance table refers to")
            made = write_transcoded(piece.method, stored, recipe, piece.length)
        if len(made) != piece.length or xxhash.xxh3_64_intdigest(made) != piece.digest:
            raise MismatchError(f"{piece.pack}: a codestream made from it")
        return made

    def _frame(self, piece: CodedPiece, size: int) -> bytes:
        slices = self._frames.slices(piece.pack, piece.stack, piece.frame, 0, size)
        return b"".join(self._frames.fetch(wanted.unit)[wanted.start : wanted.stop] for wanted in slices)
