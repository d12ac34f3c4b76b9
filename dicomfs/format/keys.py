"""Names of objects: built and taken apart here only (docs/format.md, object keys)."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from dicomfs.errors import DamagedError
from dicomfs.model import ObjectKey, PackKind

_PACK_KEY = re.compile(r"(pixel|burned|opaque|header|text)/([0-9a-f]{2})/([0-9a-f]{64})")
_JOURNAL_KEY = re.compile(r"journal/([0-9a-f]{16})")
JOURNAL_PREFIX = "journal"
SNAPSHOT_PREFIX = "snapshot"


def pack_key(kind: PackKind, sha256: str) -> ObjectKey:
    """Key of a pack from the SHA-256 of its bytes (64 lower-case hex digits)."""
    return ObjectKey(f"{kind.prefix}/{sha256[:2]}/{sha256}")


def parse_pack_key(key: str) -> tuple[PackKind, bytes]:
    """Kind and 32-byte digest of a pack's key; DamagedError for any other string."""
    match = _PACK_KEY.fullmatch(key)
    if match is None or match[3][:2] != match[2]:
        raise DamagedError("object key", "not the key of a pack")
    return PackKind[match[1].upper()], bytes.fromhex(match[3])


StoredPackKey = tuple[
    Annotated[int, msgspec.Meta(ge=1, le=len(PackKind))],
    Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)],
]
"""The key of a pack as it stands in other objects: its kind and digest."""


def stored_pack_key(key: ObjectKey) -> StoredPackKey:
    """The stored form of a pack's key; DamagedError for any other string."""
    kind, digest = parse_pack_key(key)
    return int(kind), digest


def key_of_stored(kind: int, digest: bytes) -> ObjectKey:
    """The key of a pack from its stored form."""
    return pack_key(PackKind(kind), digest.hex())


def snapshot_key(sha256: str) -> ObjectKey:
    """Key of a snapshot from the SHA-256 of its bytes (64 lower-case hex digits)."""
    return ObjectKey(f"{SNAPSHOT_PREFIX}/{sha256[:2]}/{sha256}")


def journal_key(sequence: int) -> ObjectKey:
    """Key of a journal object from its sequence number (below 2**64)."""
    return ObjectKey(f"{JOURNAL_PREFIX}/{sequence:016x}")


def is_journal_key(key: str) -> bool:
    """Whether it is the key of a journal object."""
    return _JOURNAL_KEY.fullmatch(key) is not None


def parse_journal_key(key: str) -> int:
    """Sequence number of a journal object's key; DamagedError for any other string."""
    match = _JOURNAL_KEY.fullmatch(key)
    if match is None:
        raise DamagedError("object key", "not the key of a journal object")
    return int(match[1], 16)
