"""File names of instances, derived from what the catalog stores of them.

Owns the rule `<instance number, 6 digits>.dcm` and its variants for missing and duplicate numbers
(Instance Number (0020,0013), PS3.3 C.7.6.1).  Names are derived, never stored; which *level* an
instance needs is decided once, when it is accepted, and stored.
"""

from __future__ import annotations

import hashlib
import re

NUMBER_LIMIT = 10**15
"""Numbers from here on count as missing: names stay short, columns 64 bit (IS has at most 12 characters)."""

_HASH_DIGITS = {0: 0, 1: 8, 2: 16}
_NAME = re.compile(r"(?P<number>[0-9]{6,15}|x)(?:-(?:[0-9a-f]{8}|[0-9a-f]{16}))?\.dcm")


def usable_number(number: int | None) -> int | None:
    """``number`` where a name can carry it, else None (missing, negative or absurd)."""
    return number if number is not None and 0 <= number < NUMBER_LIMIT else None


def instance_name(number: int | None, sop_instance_uid: str, level: int) -> str:
    """File name of an instance within its series folder.

    Level 0 is `000012.dcm`, 1 adds the first 8 and 2 the first 16 hex digits of the SHA-256 of the
    SOP Instance UID (UTF-8).  Without a usable number the name is `x-<8 hex>.dcm`, at level 2 with 16.
    Raises ValueError for another level.
    """
    if level not in _HASH_DIGITS:
        msg = f"no name level {level}"
        raise ValueError(msg)
    digits = _HASH_DIGITS[level]
    usable = usable_number(number)
    if usable is None:
        return f"x-{_uid_hash(sop_instance_uid, digits or 8)}.dcm"
    if not digits:
        return f"{usable:06d}.dcm"
    return f"{usable:06d}-{_uid_hash(sop_instance_uid, digits)}.dcm"


def number_in_name(name: str) -> tuple[bool, int | None]:
    """Whether ``name`` can be an instance's file name, and the instance number it claims (None for `x-`)."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False, None
    number = match["number"]
    return True, None if number == "x" else int(number)


def _uid_hash(uid: str, digits: int) -> str:
    # Odd files can hand in lone surrogates; a name must still come out.
    return hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
