"""Transfer syntaxes: what a Transfer Syntax UID says about the encoding of a data set.

Owns the few facts that the scanner needs (PS3.5 section 10 and annex A, PS3.6 annex A).  Does not own codecs:
whether a compressed value can be decoded is no matter of the file's structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
GE_PRIVATE_IMPLICIT_BIG = "1.2.840.113619.5.2"
"""Little-endian data set around big-endian pixel values, retired private syntax of one vendor."""
PAPYRUS_IMPLICIT = "1.2.840.10008.1.20"
JPIP_DEFLATED = frozenset({"1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
JPIP_REFERENCED = frozenset({"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"})


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """Encoding of a data set."""

    uid: str
    """As found in the file, or the UID of the encoding that was guessed where there is none."""
    explicit: bool
    """Value representations are written out."""
    big_endian: bool
    deflated: bool
    """The whole data set behind the meta group is one raw deflate stream (PS3.5 A.5)."""
    encapsulated: bool
    """The pixel value is a sequence of fragments (PS3.5 A.4)."""


@lru_cache(maxsize=256)
def transfer_syntax(uid: str) -> TransferSyntax:
    """Facts on a Transfer Syntax UID; an unknown UID is taken as compressed (explicit, little endian)."""
    if uid in {IMPLICIT_LITTLE, GE_PRIVATE_IMPLICIT_BIG, PAPYRUS_IMPLICIT}:
        return TransferSyntax(uid, explicit=False, big_endian=False, deflated=False, encapsulated=False)
    if uid == EXPLICIT_BIG:
        return TransferSyntax(uid, explicit=True, big_endian=True, deflated=False, encapsulated=False)
    deflated = uid == DEFLATED_LITTLE or uid in JPIP_DEFLATED
    native = deflated or uid == EXPLICIT_LITTLE or uid in JPIP_REFERENCED
    return TransferSyntax(uid, explicit=True, big_endian=False, deflated=deflated, encapsulated=not native)


def native_uid(*, explicit: bool, big_endian: bool) -> str:
    """UID of the native syntax with this encoding; implicit big endian has none and gives ''."""
    if big_endian:
        return EXPLICIT_BIG if explicit else ""
    return EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
