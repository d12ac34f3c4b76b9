"""The columns of pieces that are codestreams: written anew from a frame, or from a range of a stream.

Owns their stored form and its bounds.  Does not know how a codestream is written (dicomfs.codec.bitstream).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError
from dicomfs.format.columns import IntColumn, decode_ints, encode_ints
from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.version import MAX_BLOCK, MAX_FRAMES, MAX_LENGTH, MAX_STACKS, MAX_STREAMS
from dicomfs.model import CodedPiece, ObjectKey, Piece, TranscodedPiece

FEATURE: Final = "codestreams"
"""Name of the feature that a header pack with such pieces needs."""
MAX_CODED: Final = 1 << 28
"""Bytes of one codestream: it is made as a whole."""
MAX_METHOD: Final = 255

_FRAME_LIMITS = (MAX_STACKS, MAX_FRAMES, MAX_METHOD, MAX_BLOCK, MAX_CODED)
_STREAM_LIMITS = (MAX_STREAMS, MAX_LENGTH, MAX_CODED, MAX_METHOD, MAX_BLOCK, MAX_CODED)
_Int64s = npt.NDArray[np.int64]


class CodedColumns(msgspec.Struct, frozen=True, array_like=True):
    """Columns of C and T pieces, in the order of rows and within a row in that of its shape."""

    frames: Annotated[tuple[IntColumn, ...], msgspec.Meta(min_length=6, max_length=6)]
    """Of C pieces: index in the keys of the part, stack, frame, method, bytes of the recipe, bytes."""
    streams: Annotated[tuple[IntColumn, ...], msgspec.Meta(min_length=7, max_length=7)]
    """Of T pieces: index in the keys, stream, offset, stored bytes, method, bytes of the recipe, bytes."""
    digests: bytes
    """XXH3-64 of the bytes of each C piece, then of each T piece."""


def encode_coded(pieces: Sequence[Piece], keys: dict[ObjectKey, int]) -> CodedColumns | None:
    """The columns of the pieces of a part; None where it has none of these."""
    coded = [piece for piece in pieces if isinstance(piece, CodedPiece)]
    transcoded = [piece for piece in pieces if isinstance(piece, TranscodedPiece)]
    if not coded and not transcoded:
        return None
    frames = [(keys[p.pack], p.stack, p.frame, p.method, p.recipe, p.length) for p in coded]
    streams = [(keys[p.pack], p.stream, p.offset, p.stored, p.method, p.recipe, p.length) for p in transcoded]
    digests = [*(piece.digest for piece in coded), *(piece.digest for piece in transcoded)]
    return CodedColumns(_columns(frames, 6), _columns(streams, 7), np.array(digests, "<u8").tobytes())


def coded_pieces(columns: CodedColumns, count: int, keys: Sequence[ObjectKey], name: str) -> Iterator[Piece]:
    """The C pieces of a part, ``count`` by its shapes; DamagedError."""
    rows = _rows(columns.frames, count, (len(keys) - 1, *_FRAME_LIMITS), name)
    for row, digest in zip(rows, _digests(columns, 0, count, name), strict=True):
        key, stack, frame, method, recipe, length = row
        yield CodedPiece(keys[key], stack, frame, method, recipe, length, digest)


def transcoded_pieces(
    columns: CodedColumns, before: int, count: int, keys: Sequence[ObjectKey], name: str
) -> Iterator[Piece]:
    """The T pieces of a part, whose digests follow those of ``before`` C pieces; DamagedError."""
    rows = _rows(columns.streams, count, (len(keys) - 1, *_STREAM_LIMITS), name)
    for row, digest in zip(rows, _digests(columns, before, count, name), strict=True):
        key, stream, offset, stored, method, recipe, length = row
        yield TranscodedPiece(keys[key], stream, offset, stored, method, recipe, length, digest)


def recipe_lengths(columns: CodedColumns, coded: int, transcoded: int, name: str) -> tuple[_Int64s, _Int64s]:
    """Bytes of the recipes of C pieces and of T pieces; DamagedError."""
    return (
        _bounded(columns.frames[4], coded, MAX_BLOCK, name),
        _bounded(columns.streams[5], transcoded, MAX_BLOCK, name),
    )


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> tuple[IntColumn, ...]:
    return tuple(encode_ints([row[column] for row in rows]) for column in range(width))


def _rows(
    columns: tuple[IntColumn, ...], count: int, limits: tuple[int, ...], name: str
) -> Iterator[tuple[int, ...]]:
    decoded = [
        _bounded(column, count, limit, name).tolist() for column, limit in zip(columns, limits, strict=True)
    ]
    return zip(*decoded, strict=True)


def _bounded(column: IntColumn, count: int, largest: int, name: str) -> _Int64s:
    values = decode_ints(column, count, name)
    if count and (int(values.min()) < 0 or int(values.max()) > largest):
        raise DamagedError(name, "number out of range in a column")
    return values


def _digests(columns: CodedColumns, first: int, count: int, name: str) -> list[int]:
    found = columns.digests[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES]
    if len(found) != count * DIGEST_BYTES:
        raise DamagedError(name, "wrong number of digests in a table")
    return [int(value) for value in np.frombuffer(found, "<u8")]
