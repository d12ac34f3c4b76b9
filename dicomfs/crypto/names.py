"""Names under which sealed objects lie: reversible with the name key, and telling nothing without it.

Owns the mapping between logical keys and stored names (docs/encryption.md, "Names").  Deterministic, so that
a name can be found from a key without a look-up: AES-256-SIV (RFC 5297).
"""

from __future__ import annotations

import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from dicomfs.model import ObjectKey

NAME_KEY_BYTES = 64
_CONTEXT = b"dicomfs name 1"
_BY_DIGEST = re.compile(r"([a-z0-9_-][a-z0-9._-]*)/([0-9a-f]{2})/([0-9a-f]{64})")
_JOURNAL = re.compile(r"journal/[0-9a-f]{16}")
_JOURNAL_STORED = re.compile(r"(journal/[0-9a-f]{16})\.sealed")
_STORED = re.compile(
    r"(?P<kind>[a-z0-9_-][a-z0-9._-]*)/((?P<folder>[0-9a-f]{2})/(?P<digest>[0-9a-f]{96})|(?P<text>[0-9a-f]{32,}))"
)


class NameCipher:
    """Stored names by logical keys and back.  Thread-safe."""

    def __init__(self, name_key: bytes) -> None:
        self._cipher = AESSIV(name_key)

    def stored(self, key: ObjectKey) -> ObjectKey:
        """The name under which an object lies; its first component, the kind, stays as it is.

        Other keys than ``<kind>/<2 hex>/<64 hex>`` get twice as long; the tier refuses what gets too long.
        """
        if _JOURNAL.fullmatch(key):
            return ObjectKey(f"{key}.sealed")
        kind, _, rest = key.partition("/")
        match = _BY_DIGEST.fullmatch(key)
        if match is None or match[3][:2] != match[2]:
            return ObjectKey(f"{kind}/{self._sealed(kind, rest.encode('ascii'))}")
        name = self._sealed(kind, bytes.fromhex(match[3]))
        return ObjectKey(f"{kind}/{name[:2]}/{name}")

    def logical(self, stored: str) -> ObjectKey | None:
        """The key of a stored name; None when it is not one that this name key made."""
        if (journal := _JOURNAL_STORED.fullmatch(stored)) is not None:
            return ObjectKey(journal[1])
        match = _STORED.fullmatch(stored)
        if match is None:
            return None
        kind, name = match["kind"], match["digest"] or match["text"]
        if match["digest"] and name[:2] != match["folder"]:
            return None
        try:
            opened = self._cipher.decrypt(bytes.fromhex(name), [_CONTEXT, kind.encode("ascii")])
            if match["digest"]:
                digest = opened.hex()
                return ObjectKey(f"{kind}/{digest[:2]}/{digest}")
            rest = opened.decode("ascii")
        except (InvalidTag, ValueError):
            return None
        return ObjectKey(f"{kind}/{rest}" if rest else kind)

    def _sealed(self, kind: str, content: bytes) -> str:
        return self._cipher.encrypt(content, [_CONTEXT, kind.encode("ascii")]).hex()
