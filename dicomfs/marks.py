"""What we note on an inode beneath ``incoming/``: what its bytes were accepted as, or where they lie.

Owns two extended attributes that clients can neither see nor set (docs/format.md, "Stubs"):

- the *mark* names the instance that the file's bytes were accepted as, for good or provisionally, or says
  that what it holds, be it zeros, was written there; it changes before the first byte does;
- the *reference* makes the file a *stub*: it wins over whatever blocks the file has.  It carries a code that
  nobody can make without the archive's key, so that a copied or forged one names no other patient's bytes.
"""

from __future__ import annotations

import enum
import errno
import hmac
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.model import POSITION_BITS, InstanceId

MARK: Final = "user.dicomfs.accepted"
REFERENCE: Final = "user.dicomfs.stub"
_VERSION: Final = 1
_INSTANCE_BITS: Final = 60
_NOBODY: Final = InstanceId(0, 0)
_MARK = struct.Struct("<Q")
_FIELDS = struct.Struct("<QQqq")
_CODE_BYTES: Final = 16
_NONE: Final = frozenset((errno.ENODATA, errno.EOPNOTSUPP))
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))

Where = int | Path
"""A descriptor, or a path to one that only names a file."""


class State(enum.IntEnum):
    """What a mark says; the numbers are stored."""

    ACCEPTED = 1
    """The bytes are those of the instance."""
    PROVISIONAL = 2
    """The same, and the instance goes when they change: docs/adr/0018-provisional-acceptance.md."""
    WRITTEN = 3
    """They were written here, by a client or by us, be they only zeros."""


class Mark(NamedTuple):
    """A mark; a file that was merely written has no instance."""

    state: State
    instance: InstanceId | None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a stub says; times are nanoseconds since 1970."""

    instance: InstanceId
    size: int
    mtime_ns: int
    ctime_ns: int
    """What stat(2) shows while nobody touched the stub; 0 once its own times count."""

    def fields(self) -> bytes:
        """The part of the value that the code protects."""
        return _FIELDS.pack(_word(self.instance), self.size, self.mtime_ns, self.ctime_ns)


class Sealer:
    """Makes and checks the codes of references; holds the archive's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def value(self, reference: Reference, sha256: bytes) -> bytes:
        """The attribute's value, 48 bytes: it stays inside the inode where values up to 56 bytes do."""
        return reference.fields() + self._code(reference, sha256)

    def is_genuine(self, value: bytes, reference: Reference, sha256: bytes) -> bool:
        """Whether a value was made by this archive for these bytes."""
        return hmac.compare_digest(value[_FIELDS.size :], self._code(reference, sha256))

    def _code(self, reference: Reference, sha256: bytes) -> bytes:
        return hmac.digest(self._key, reference.fields() + sha256, "sha256")[:_CODE_BYTES]


def set_mark(where: Where, instance: InstanceId, *, provisional: bool = False) -> None:
    """Note that a file was accepted.  Raises OSError."""
    state = State.PROVISIONAL if provisional else State.ACCEPTED
    os.setxattr(where, MARK, _MARK.pack(_word(instance, state)))


def set_written(where: Where) -> None:
    """Note that a file holds what was written, and is accepted no more.  Raises OSError."""
    try:
        os.setxattr(where, MARK, _MARK.pack(_word(_NOBODY, State.WRITTEN)))
    except OSError as problem:
        # A full disk, or one without such attributes: what matters more is that no other mark stays.
        remove_mark(where)
        if problem.errno not in _NO_ROOM | _NONE:
            raise


def read_mark(where: Where) -> Mark | None:
    """The mark of a file; None where it has none.  Raises OSError."""
    value = _get(where, MARK)
    if len(value) != _MARK.size:
        return None
    (word,) = _MARK.unpack(value)
    if word == _word(_NOBODY, State.WRITTEN):
        return Mark(State.WRITTEN, None)
    kind = word >> _INSTANCE_BITS
    return Mark(State(kind), _instance(word)) if kind in (State.ACCEPTED, State.PROVISIONAL) else None


def accepted_as(where: Where) -> InstanceId | None:
    """The instance that a file's bytes were accepted as, provisionally too.  Raises OSError."""
    mark = read_mark(where)
    return None if mark is None else mark.instance


def remove_mark(where: Where) -> None:
    """Take a mark away, if there is one.  Raises OSError."""
    _remove(where, MARK)


def set_reference(where: Where, value: bytes) -> None:
    """Make a file a stub.  Raises OSError."""
    os.setxattr(where, REFERENCE, value)


def read_reference(where: Where, size: int) -> tuple[bytes, Reference] | None:
    """The value and the meaning of a stub's reference; None for a file that is no stub.

    A reference for another size than the file's is void: the file was emptied by one that died.

    Raises OSError.
    """
    value = _get(where, REFERENCE)
    if len(value) != _FIELDS.size + _CODE_BYTES:
        return None
    word, stored, mtime_ns, ctime_ns = _FIELDS.unpack_from(value)
    if word >> _INSTANCE_BITS != _VERSION or stored != size:
        return None
    return value, Reference(_instance(word), stored, mtime_ns, ctime_ns)


def remove_reference(where: Where) -> None:
    """Make a file a whole one.  Raises OSError."""
    _remove(where, REFERENCE)


def touched(reference: Reference) -> Reference:
    """The reference of a stub whose own times count from now on."""
    return replace(reference, ctime_ns=0)


def _word(instance: InstanceId, kind: int = _VERSION) -> int:
    return kind << _INSTANCE_BITS | instance.series << POSITION_BITS | instance.position


def _instance(word: int) -> InstanceId:
    number = word & ((1 << _INSTANCE_BITS) - 1)
    return InstanceId(number >> POSITION_BITS, number & ((1 << POSITION_BITS) - 1))


def _get(where: Where, name: str) -> bytes:
    try:
        return os.getxattr(where, name)
    except OSError as problem:
        if problem.errno in _NONE:
            return b""
        raise


def _remove(where: Where, name: str) -> None:
    try:
        os.removexattr(where, name)
    except OSError as problem:
        if problem.errno not in _NONE:
            raise
