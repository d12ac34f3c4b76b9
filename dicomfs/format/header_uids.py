"""SOP Instance UIDs of an instance table: where they lie in the header bytes, or the texts themselves.

Owns what is stored of them.  A UID stands in the header once or twice; a random one costs as much as a third
digest, so the table only says where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from dicomfs.errors import DamagedError
from dicomfs.format.columns import MAX_TEXT, IntColumn, TextColumn, decode_ints, decode_texts, encode_ints
from dicomfs.format.version import MAX_BLOCK


class UidPlaces(msgspec.Struct, frozen=True, array_like=True):
    """Where the UIDs of all rows of a part lie."""

    offset: IntColumn
    """In the header bytes of the row."""
    length: IntColumn
    """Bytes; 0: the UID is among the texts of the table, which holds those of such rows only."""


def find_uids(uids: Sequence[str], headers: Sequence[bytes]) -> tuple[UidPlaces, list[str]]:
    """Where the UIDs are in the headers, and those that are not there."""
    offsets: list[int] = []
    lengths: list[int] = []
    missing: list[str] = []
    before = 0
    for uid, header in zip(uids, headers, strict=True):
        text = uid.encode("ascii", "replace")
        # The place of the row before is tried first: a column of equal places costs nothing.
        at = before if text and header.startswith(text, before) else header.find(text)
        if not text or at < 0 or len(text) > MAX_TEXT or text.decode() != uid:
            missing.append(uid)
            offsets.append(before)
            lengths.append(0)
        else:
            before = at
            offsets.append(at)
            lengths.append(len(text))
    return UidPlaces(encode_ints(offsets), encode_ints(lengths)), missing


def read_uids(
    places: UidPlaces | None,
    texts: TextColumn,
    rows: int,
    header: Callable[[int], bytes] | None,
    artefact: str,
) -> list[str]:
    """The UID of each row.

    ``header`` gives the header bytes of a row.  Without it, and for rows whose header bytes are lost, the
    UIDs that lie there are ''.  DamagedError.
    """
    if places is None:
        return decode_texts(texts, rows, artefact)
    offsets = decode_ints(places.offset, rows, artefact)
    lengths = decode_ints(places.length, rows, artefact)
    if rows and (
        min(int(offsets.min()), int(lengths.min())) < 0
        or int(lengths.max()) > MAX_TEXT
        or int(offsets.max()) > MAX_BLOCK
    ):
        raise DamagedError(artefact, "impossible place of a UID")
    stored = iter(decode_texts(texts, int(np.count_nonzero(lengths == 0)), artefact))
    return list(_uids(offsets.tolist(), lengths.tolist(), stored, header, artefact))


def _uids(
    offsets: list[int],
    lengths: list[int],
    stored: Iterator[str],
    header: Callable[[int], bytes] | None,
    artefact: str,
) -> Iterator[str]:
    for row, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        if not length:
            yield next(stored)
        elif header is None:
            yield ""
        else:
            yield _uid(header, row, offset, length, artefact)


def _uid(header: Callable[[int], bytes], row: int, offset: int, length: int, artefact: str) -> str:
    try:
        found = header(row)[offset : offset + length]
    except DamagedError:
        return ""
    if len(found) != length or not found.isascii():
        raise DamagedError(artefact, "no UID where the table says one is")
    return found.decode()
