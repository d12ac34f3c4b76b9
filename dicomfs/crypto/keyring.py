"""Keyrings as bytes: many data keys and the name key of a tier, wrapped by the archive key.

Owns the format (docs/encryption.md, "Keyring").  Where keyrings lie, and which is used, is up to
`dicomfs.tiers.keyrings`.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicomfs.crypto.keys import ArchiveKey
from dicomfs.crypto.names import NAME_KEY_BYTES
from dicomfs.errors import DamagedError, UnsupportedVersion
from dicomfs.model import ObjectKey

MAGIC = b"\xd1CMKR\r\n\x1a"
VERSION = 1
DATA_KEY_BYTES = 32
MOST_KEYS = 1 << 16
"""Keys of one keyring that a reader accepts: bounds what it reads."""
KEYRING_PREFIX = "keyring"
_HEAD = struct.Struct("<8sHHIQII16s8s")
_NONCE = 12
_TAG = 16
_NAME = re.compile(rf"{KEYRING_PREFIX}/([0-9a-f]{{16}})/([0-9a-f]{{8}})")
_DESTROYED = bytes(DATA_KEY_BYTES)


@dataclass(frozen=True, slots=True)
class KeyringHead:
    """What a keyring says before it is opened."""

    number: int
    """Random, below 2**64; 0 is the one that brings the name key into the world."""
    version: int
    """From 1; the same keys wrapped anew, or with fewer of them."""
    keys: int
    archive_id: bytes
    """16 bytes."""
    key_id: bytes
    """`ArchiveKey.id` of the key that opens it, 8 bytes."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """An open keyring."""

    number: int
    version: int
    archive_id: bytes
    key_id: bytes
    """`ArchiveKey.id` of the key that wraps this version."""
    name_key: bytes = field(repr=False)
    """64 bytes; the same in all keyrings of a tier."""
    data_keys: tuple[bytes | None, ...] = field(repr=False)
    """AES-256 keys by index; None where one was destroyed."""

    @property
    def object_key(self) -> ObjectKey:
        """Where this version lies."""
        return keyring_key(self.number, self.version)

    @property
    def stored_bytes(self) -> int:
        """How long its stored form is."""
        return _HEAD.size + _NONCE + NAME_KEY_BYTES + len(self.data_keys) * DATA_KEY_BYTES + _TAG

    def following(self, version: int, key: ArchiveKey, destroyed: Collection[int] = ()) -> Keyring:
        """A later version, to be wrapped by ``key``, in which some keys are destroyed."""
        kept = tuple(None if place in destroyed else known for place, known in enumerate(self.data_keys))
        return replace(self, version=version, key_id=key.id, data_keys=kept)

    def wrapped(self, key: ArchiveKey, nonce: bytes | None = None) -> bytes:
        """The bytes to store, wrapped by the key of `key_id`; the nonce is random unless given, for tests."""
        head = _HEAD.pack(
            MAGIC, VERSION, 0, len(self.data_keys), self.number, self.version, 0, self.archive_id, self.key_id
        )
        plain = self.name_key + b"".join(known or _DESTROYED for known in self.data_keys)
        nonce = nonce or secrets.token_bytes(_NONCE)
        return head + nonce + AESGCM(key.wrapping_key).encrypt(nonce, plain, head)


def new_keyring(number: int, archive_id: bytes, key: ArchiveKey, name_key: bytes, keys: int) -> Keyring:
    """The first version of a keyring, of so many random keys, to be wrapped by ``key``."""
    made = tuple(secrets.token_bytes(DATA_KEY_BYTES) for _ in range(keys))
    return Keyring(number, 1, archive_id, key.id, name_key, made)


def new_name_key() -> bytes:
    """A random name key."""
    return secrets.token_bytes(NAME_KEY_BYTES)


def keyring_key(number: int, version: int) -> ObjectKey:
    """Where a version of a keyring lies."""
    return ObjectKey(f"{KEYRING_PREFIX}/{number:016x}/{version:08x}")


def parse_keyring_key(key: str) -> tuple[int, int] | None:
    """Number and version by the name of a keyring; None for other names."""
    match = _NAME.fullmatch(key)
    return None if match is None else (int(match[1], 16), int(match[2], 16))


def read_head(data: bytes, key: ObjectKey) -> KeyringHead:
    """What stored bytes say before they are opened; nothing of it is proven yet.

    Raises:
        DamagedError: they are no keyring, or not the one of that name.
        UnsupportedVersion: they were written by a newer version.
    """
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise DamagedError(key, "is no keyring")
    _, version, flags, keys, number, revision, padding, archive_id, key_id = _HEAD.unpack_from(data)
    if version > VERSION:
        raise UnsupportedVersion(key, version, VERSION)
    expected = _HEAD.size + _NONCE + NAME_KEY_BYTES + keys * DATA_KEY_BYTES + _TAG
    if version != VERSION or flags or padding or keys > MOST_KEYS or len(data) != expected:
        raise DamagedError(key, "is no keyring of this length")
    if parse_keyring_key(key) != (number, revision):
        raise DamagedError(key, "is the keyring of another name")
    return KeyringHead(number, revision, keys, archive_id, key_id)


def unwrapped(data: bytes, key: ObjectKey, archive_key: ArchiveKey) -> Keyring:
    """Open a stored keyring.

    Raises:
        DamagedError: it is damaged or forged, or another key wrapped it.
        UnsupportedVersion: it was written by a newer version.
    """
    head = read_head(data, key)
    nonce = data[_HEAD.size : _HEAD.size + _NONCE]
    try:
        plain = AESGCM(archive_key.wrapping_key).decrypt(
            nonce, data[_HEAD.size + _NONCE :], data[: _HEAD.size]
        )
    except InvalidTag:
        raise DamagedError(key, "does not open: damaged or forged") from None
    found = (
        plain[start : start + DATA_KEY_BYTES] for start in range(NAME_KEY_BYTES, len(plain), DATA_KEY_BYTES)
    )
    return Keyring(
        head.number,
        head.version,
        head.archive_id,
        head.key_id,
        plain[:NAME_KEY_BYTES],
        tuple(None if secret == _DESTROYED else secret for secret in found),
    )
