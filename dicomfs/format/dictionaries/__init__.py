"""Dictionaries shipped with the format: bytes that headers are likely to hold, none of any patient.

Owns their numbers and their digests.  A dictionary never changes once a release has written with it: another
one gets the next number.  They are made by ``tools/make_dictionary.py``.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from dicomfs.errors import FormatError, UnsupportedFeature

DICTIONARY = 1
"""The one that is written with."""
_SHA256 = {1: "13bb010f278463765a295d06598662a5a28ef563c8c1642637d2eb82f6b63552"}
"""Number -> digest of its bytes: what was compressed with other bytes would not come back."""


@functools.cache
def dictionary(number: int, artefact: str = "object being written") -> bytes:
    """The bytes of a dictionary.

    Raises:
        UnsupportedFeature: a newer version has it.
        FormatError: the installed file is not the one that was shipped.
    """
    if number not in _SHA256:
        raise UnsupportedFeature(artefact, [f"dictionary {number}"])
    data = resources.files(__name__).joinpath(f"{number}.zdict").read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256[number]:
        raise FormatError(artefact, f"the installed dictionary {number} is not the one that was shipped")
    return data
