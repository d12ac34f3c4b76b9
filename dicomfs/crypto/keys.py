"""The archive key: its text form, the file that keeps it, and what is derived from it.

Owns the key document (docs/encryption.md, "Archive key").  Where a key comes from is decided in
`key_sources`.  No message shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.errors import UsageError
from dicomfs.paths import sync_folder

KEY_BYTES = 32
_FORMAT = "dicomfs archive key 1"
_MOST_TEXT = 1 << 16
"""Bytes of a key document; words for people included."""
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """32 random bytes that open every keyring of an archive."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise UsageError(f"an archive key has {KEY_BYTES} bytes, not {len(self.secret)}")

    @property
    def id(self) -> bytes:
        """Names the key and tells nothing of it, 8 bytes."""
        return self._derived(b"dicomfs key id 1")[:8]

    @property
    def wrapping_key(self) -> bytes:
        """The AES-256 key that wraps keyrings."""
        return self._derived(b"dicomfs keyring 1")

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self.secret, purpose, hashlib.sha256)


def new_key() -> ArchiveKey:
    """A random key."""
    return ArchiveKey(secrets.token_bytes(KEY_BYTES))


def to_text(key: ArchiveKey) -> str:
    """The key document: may be printed and typed in again."""
    digits = key.secret.hex()
    groups = [digits[start : start + 4] for start in range(0, len(digits), 4)]
    return (
        "# Archive key of dicomfs.  Whoever has it can read the archive's encrypted tiers;\n"
        "# without it nobody can, and nobody can make it again.  Keep a copy in a safe.\n"
        "# To use it, name this file as keys.file in dicomfs.toml, or with --key-file.\n"
        "# Typed from paper: spaces between digits, and lines that begin with #, do not count.\n"
        f"format: {_FORMAT}\n"
        f"id: {key.id.hex()}\n"
        f"key: {' '.join(groups)}\n"
        f"checksum: {_checksum(key)}\n"
    )


def from_text(text: str, where: str) -> ArchiveKey:
    """Read a key document, or only the key as 64 hex digits or as Base64 of 32 bytes.

    Raises UsageError naming ``where``, never with a part of the text.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if any(":" in line for line in lines):
        return _from_document(lines, where)
    return ArchiveKey(_from_digits("".join(lines), where))


def read_key_file(path: Path) -> ArchiveKey:
    """Read a key file that nobody else may read.

    Raises UsageError: missing, unreadable, open to others, or not a key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check_private(path, os.fstat(descriptor))
            data = os.read(descriptor, _MOST_TEXT)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise UsageError(f"key file {path}: cannot be read: {problem.strerror}") from problem
    try:
        return from_text(data.decode("utf-8"), f"key file {path}")
    except UnicodeDecodeError:
        # Without its cause: that would show bytes of the file.
        raise UsageError(f"key file {path}: is not text") from None


def write_key_file(path: Path, key: ArchiveKey) -> None:
    """Write a new key file of mode 0400, durably, and read it back.

    Raises UsageError: there is something of that name already, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    except FileExistsError:
        raise UsageError(f"{path}: exists already and is not overwritten: name a new file") from None
    except OSError as problem:
        raise UsageError(f"{path}: cannot be written: {problem.strerror}") from problem
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(to_text(key))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as problem:
        path.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written: {problem.strerror}") from problem
    if from_text(path.read_text(encoding="ascii"), str(path)) != key:
        raise UsageError(f"{path}: does not hold what was written: use another disk")


def read_or_make_key_file(path: Path) -> ArchiveKey:
    """The key in a file; a new one where there is no such file.  Raises UsageError as the others do."""
    if not path.exists():
        write_key_file(path, new_key())
    return read_key_file(path)


def _from_document(lines: list[str], where: str) -> ArchiveKey:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or name in fields:
            raise UsageError(f"{where}: is no key document: a line is without a name, or twice there")
        fields[name] = value.strip()
    if fields.get("format") != _FORMAT:
        raise UsageError(f"{where}: is no key document of this version (it must say `format: {_FORMAT}`)")
    if fields.keys() != {"format", "id", "key", "checksum"}:
        raise UsageError(f"{where}: must have the lines format, id, key and checksum")
    key = ArchiveKey(_from_digits(fields["key"], where))
    if _plain(fields["checksum"]) != _checksum(key) or _plain(fields["id"]) != key.id.hex():
        raise UsageError(f"{where}: a digit is wrong: checksum or id do not fit the key")
    return key


def _from_digits(text: str, where: str) -> bytes:
    digits = "".join(text.split())
    if _HEX.fullmatch(digits.lower()):
        return bytes.fromhex(digits)
    try:
        found = base64.b64decode(digits, validate=True)
    except (ValueError, binascii.Error):
        found = b""
    if len(found) != KEY_BYTES:
        raise UsageError(
            f"{where}: is no archive key (64 hex digits, or Base64 of {KEY_BYTES} bytes)"
        ) from None
    return found


def _plain(digits: str) -> str:
    return "".join(digits.split()).lower()


def _checksum(key: ArchiveKey) -> str:
    return hashlib.sha256(b"dicomfs key checksum 1" + key.secret).hexdigest()[:8]


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"key file {path}: is not a file")
    if found.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"key file {path}: belongs to another user; chown it to the one that runs dicomfs")
    if found.st_mode & 0o077:
        raise UsageError(f"key file {path}: others may read or write it; run `chmod 0400 {path}`")
