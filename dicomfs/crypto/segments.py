"""Sealed objects as bytes: segments that are decrypted and checked on their own.

Owns the format (docs/encryption.md, "Object") and its arithmetic.  Each segment names its key and the length
of the whole, so that any range is read by one request and no header.
"""

from __future__ import annotations

import io
import secrets
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicomfs.errors import DamagedError, UnsupportedVersion
from dicomfs.model import ObjectKey

MAGIC = b"\xd1CMS"
VERSION = 1
SEGMENT_BYTES = 1 << 16
"""Plain bytes of every segment but the last."""
_PREFIX = struct.Struct("<4sBBHQIQ")
_SECTION = 1
"""Kind of section; there is only this one."""
_NONCE = 12
_TAG = 16
OVERHEAD = _PREFIX.size + _NONCE + _TAG
"""Bytes that a segment takes beyond its plain ones."""
STORED_SEGMENT = SEGMENT_BYTES + OVERHEAD
_MOST_LENGTH = 1 << 56


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Which data key seals an object."""

    keyring: int
    index: int


KeyFinder = Callable[[KeyReference], bytes]
"""The data key of a reference, 32 bytes."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive segments, opened."""

    plain: bytes
    """What was wanted of them."""
    covered: int
    """Plain bytes that all of them hold."""
    length: int
    """Plain bytes of the whole object."""
    reference: KeyReference


def segments_of(length: int) -> int:
    """How many segments hold so many plain bytes: at least one, so that an empty object is proven too."""
    return max(1, -(-length // SEGMENT_BYTES))


def stored_size(length: int) -> int:
    """Bytes stored for so many plain ones."""
    return length + OVERHEAD * segments_of(length)


def plain_size(stored: int) -> int:
    """Plain bytes of an object by its stored size; of an impossible size, what its segments could hold."""
    return max(0, stored - OVERHEAD * max(1, -(-stored // STORED_SEGMENT)))


class Sealer:
    """Seals the segments of one object, in order."""

    def __init__(self, secret: bytes, reference: KeyReference, name: ObjectKey, length: int) -> None:
        self._cipher = AESGCM(secret)
        self._prefix = _PREFIX.pack(MAGIC, VERSION, _SECTION, 0, reference.keyring, reference.index, length)
        self._name = name
        self._next = 0

    def seal(self, plain: memoryview) -> bytes:
        """What to store for the next plain bytes: whole segments, unless the object ends with them."""
        stored = io.BytesIO()
        for start in range(0, max(1, len(plain)), SEGMENT_BYTES):
            stored.write(self.segment(plain[start : start + SEGMENT_BYTES], secrets.token_bytes(_NONCE)))
        return stored.getvalue()

    def segment(self, plain: memoryview | bytes, nonce: bytes) -> bytes:
        """The next segment under this nonce, which must never come again under the same key."""
        associated = _associated(self._prefix, self._next, self._name)
        self._next += 1
        return self._prefix + nonce + self._cipher.encrypt(nonce, plain, associated)


def read_reference(stored: bytes | memoryview, name: ObjectKey) -> tuple[KeyReference, int]:
    """Key and plain length that a segment names; not proven before it is opened.

    Raises:
        DamagedError: these are no sealed bytes.
        UnsupportedVersion: they were written by a newer version.
    """
    if len(stored) < OVERHEAD:
        raise DamagedError(name, "is cut short or no sealed object")
    magic, version, section, flags, keyring, index, length = _PREFIX.unpack_from(stored)
    if magic != MAGIC:
        raise DamagedError(name, "is no sealed object")
    if version > VERSION:
        raise UnsupportedVersion(name, version, VERSION)
    if version != VERSION or section != _SECTION or flags or length > _MOST_LENGTH:
        raise DamagedError(name, "has an impossible segment")
    return KeyReference(keyring, index), length


def opened(
    stored: bytes, name: ObjectKey, first: int, find_key: KeyFinder, wanted: slice = slice(None)
) -> Run:
    """Open consecutive segments, from number ``first`` on, of the object stored under ``name``.

    ``stored`` begins with a segment and ends with one; ``wanted`` counts from the first one's plain bytes.
    Nothing comes back unless all of it is proven.

    Raises:
        DamagedError: it is damaged, cut short, of another object or in another order.
        UnsupportedVersion: it was written by a newer version.
    """
    view = memoryview(stored)
    reference, length = read_reference(view, name)
    if first >= segments_of(length):
        raise DamagedError(name, "is longer than it says")
    cipher, covered, plain = AESGCM(find_key(reference)), 0, io.BytesIO()
    start, end, _ = wanted.indices(length)
    for number, segment in enumerate(_cut(view, name, first, length), first):
        piece = memoryview(_opened(cipher, segment, name, number))
        # Copied while it is in the processor's cache; the next one takes its memory.
        plain.write(piece[max(0, start - covered) : max(0, end - covered)])
        covered += len(piece)
    return Run(plain.getvalue(), covered, length, reference)


def _cut(view: memoryview, name: ObjectKey, first: int, length: int) -> Iterable[memoryview]:
    """The stored segments, each of its one possible size and with the same prefix."""
    prefix, count = view[: _PREFIX.size], segments_of(length)
    place = 0
    for number in range(first, count):
        if place == len(view):
            return
        size = min(SEGMENT_BYTES, length - number * SEGMENT_BYTES) + OVERHEAD
        segment = view[place : place + size]
        if len(segment) < size or segment[: _PREFIX.size] != prefix:
            raise DamagedError(name, f"segment {number} is cut short or of another object")
        yield segment
        place += size
    if place != len(view):
        raise DamagedError(name, "is longer than it says")


def _opened(cipher: AESGCM, segment: memoryview, name: ObjectKey, number: int) -> bytes:
    associated = _associated(bytes(segment[: _PREFIX.size]), number, name)
    try:
        return cipher.decrypt(
            segment[_PREFIX.size : _PREFIX.size + _NONCE], segment[_PREFIX.size + _NONCE :], associated
        )
    except InvalidTag:
        raise DamagedError(name, f"segment {number} does not open: damaged or forged") from None


def _associated(prefix: bytes, number: int, name: ObjectKey) -> bytes:
    return prefix + number.to_bytes(8, "little") + name.encode("ascii")
