"""A reader of sealed tiers, written from `docs/encryption.md` alone: the proof that the page is complete.

Owns its own view of names, keyrings and segments of a folder, and imports nothing of the product.  AES comes
from `cryptography`; what is built of it here is GCM, which that has as well, and SIV, made of CMAC and CTR.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.cmac import CMAC

SEGMENT = 65_536


class Refused(Exception):
    """The page says that a reader must refuse this."""


def refuse_unless(condition: bool, why: str) -> None:
    if not condition:
        raise Refused(why)


@dataclass(frozen=True)
class Keyring:
    number: int
    version: int
    archive_id: bytes
    name_key: bytes
    data_keys: list[bytes | None]


def archive_key(document: str) -> bytes:
    """The archive key of a key document."""
    lines = [line for line in document.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split(":", 1) for line in lines]
    fields = {name.strip(): "".join(value.split()).lower() for name, value in pairs}
    refuse_unless(len(fields) == len(lines) == 4, "not the four lines")
    refuse_unless(fields["format"] == "dicomfsarchivekey1", "not a key document")
    key = bytes.fromhex(fields["key"])
    refuse_unless(fields["id"] == key_id(key).hex(), "another id")
    checksum = hashlib.sha256(b"dicomfs key checksum 1" + key).digest()[:4]
    refuse_unless(fields["checksum"] == checksum.hex(), "a digit is wrong")
    return key


def key_id(key: bytes) -> bytes:
    return hmac.new(key, b"dicomfs key id 1", hashlib.sha256).digest()[:8]


def u(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")


def opened(key: bytes, nonce: bytes, data: bytes, associated: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, data, associated)
    except InvalidTag:
        raise Refused("the tag does not fit") from None


def keyring(data: bytes, name: str, key: bytes) -> Keyring:
    """A stored keyring, opened."""
    refuse_unless(len(data) >= 68 and data[:8] == bytes.fromhex("d1434d4b520d0a1a"), "no keyring")
    refuse_unless(u(data, 8, 2) == 1 and u(data, 10, 2) == 0 and u(data, 28, 4) == 0, "version or flags")
    count, number, version = u(data, 12, 4), u(data, 16, 8), u(data, 24, 4)
    refuse_unless(count <= 65_536 and len(data) == 84 + 64 + 32 * count, "length")
    refuse_unless(name == f"keyring/{number:016x}/{version:08x}", "another name")
    refuse_unless(data[48:56] == key_id(key), "another archive key")
    wrapping = hmac.new(key, b"dicomfs keyring 1", hashlib.sha256).digest()
    plain = opened(wrapping, data[56:68], data[68:], data[:56])
    keys = [plain[start : start + 32] for start in range(64, len(plain), 32)]
    return Keyring(
        number, version, data[32:48], plain[:64], [known if any(known) else None for known in keys]
    )


# AES-SIV, RFC 5297


def cmac(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big") << 1
    return ((number & (1 << 128) - 1) ^ (0x87 if number >> 128 else 0)).to_bytes(16, "big")


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def synthetic_iv(key: bytes, associated: list[bytes], plain: bytes) -> bytes:
    block = cmac(key, bytes(16))
    for text in associated:
        block = xor(doubled(block), cmac(key, text))
    if len(plain) >= 16:
        return cmac(key, plain[:-16] + xor(plain[-16:], block))
    return cmac(key, xor(doubled(block), (plain + b"\x80").ljust(16, b"\0")))


def counted(key: bytes, iv: bytes, data: bytes) -> bytes:
    start = bytearray(iv)
    start[8] &= 0x7F
    start[12] &= 0x7F
    cipher = Cipher(AES(key), CTR(bytes(start))).encryptor()
    return cipher.update(data) + cipher.finalize()


def sealed_name(name_key: bytes, kind: str, plain: bytes) -> str:
    iv = synthetic_iv(name_key[:32], [b"dicomfs name 1", kind.encode()], plain)
    return (iv + counted(name_key[32:], iv, plain)).hex()


def opened_name(name_key: bytes, kind: str, name: str) -> bytes:
    data = bytes.fromhex(name)
    plain = counted(name_key[32:], data[:16], data[16:])
    refuse_unless(sealed_name(name_key, kind, plain) == name, "a name of another tier")
    return plain


def logical_key(name_key: bytes, stored: str) -> str:
    """The logical key of a stored name."""
    kind, *rest = stored.split("/")
    if kind == "journal" and len(rest) == 1 and rest[0].endswith(".sealed"):
        return stored.removesuffix(".sealed")
    if len(rest) == 2:
        refuse_unless(len(rest[1]) == 96 and rest[1].startswith(rest[0]), "not of this form")
        digest = opened_name(name_key, kind, rest[1]).hex()
        return f"{kind}/{digest[:2]}/{digest}"
    refuse_unless(len(rest) == 1 and len(rest[0]) >= 32, "not of this form")
    text = opened_name(name_key, kind, rest[0]).decode()
    return f"{kind}/{text}" if text else kind


# Objects


def plain_object(data: bytes, stored: str, keyrings: dict[int, Keyring]) -> bytes:
    """All plain bytes of an object."""
    prefix, pieces = data[:28], []
    refuse_unless(len(data) >= 56 and prefix[:4] == bytes.fromhex("d1434d53"), "no sealed object")
    refuse_unless(prefix[4:8] == bytes([1, 1, 0, 0]), "version, section or flags")
    length = u(prefix, 20, 8)
    count = max(1, -(-length // SEGMENT))
    refuse_unless(len(data) == length + 56 * count, "length")
    ring = keyrings.get(u(prefix, 8, 8))
    refuse_unless(ring is not None and u(prefix, 16, 4) < len(ring.data_keys), "no such key")
    assert ring is not None
    key = ring.data_keys[u(prefix, 16, 4)]
    refuse_unless(key is not None, "the key was destroyed")
    assert key is not None
    for number in range(count):
        segment = data[number * 65_592 : (number + 1) * 65_592]
        refuse_unless(segment[:28] == prefix, "segments of two objects")
        associated = prefix + number.to_bytes(8, "little") + stored.encode()
        pieces.append(opened(key, segment[28:40], segment[40:], associated))
    return b"".join(pieces)


def read_tier(folder: Path, key: bytes) -> dict[str, bytes]:
    """All objects of a sealed folder tier by their logical keys."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }
    keyrings: dict[int, Keyring] = {}
    for name in sorted(name for name in files if name.startswith("keyring/")):
        ring = keyring(files[name].read_bytes(), name, key)
        keyrings[ring.number] = ring
    name_keys = {ring.name_key for ring in keyrings.values()}
    refuse_unless(len(name_keys) == 1, "keyrings of two tiers")
    (name_key,) = name_keys
    return {
        logical_key(name_key, name): plain_object(path.read_bytes(), name, keyrings)
        for name, path in files.items()
        if not name.startswith("keyring/")
    }
