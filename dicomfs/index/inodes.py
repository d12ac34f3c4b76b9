"""Arithmetic of the inode numbers under the archive's trees.

Bit 63 is clear, bit 62 set (numbers below belong to `incoming/`, whose inodes are those underneath),
bits 61-60 tell the kind.  A number names bytes or a folder for ever; it is never reused.

==== ============================ ===================================================================
kind what                         payload (60 bits)
==== ============================ ===================================================================
0    fixed node of the tree       number
1    instance                     series << 23 | position
2    folder under ``patients/``   level << 58 | number of the patient, study or series
3    folder under ``versions/``   the same; level 0: the group of one name, payload series << 23 |
                                  position of its first instance
==== ============================ ===================================================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicomfs.model import POSITION_BITS, SERIES_BITS, InstanceId, Level

MARK = 1 << 62
_KIND_SHIFT = 60
_LEVEL_SHIFT = 58
_PAYLOAD = (1 << _KIND_SHIFT) - 1
_NUMBER_LIMIT = 1 << _LEVEL_SHIFT
GROUP_SERIES_LIMIT = 1 << (_LEVEL_SHIFT - POSITION_BITS)
"""Series numbers stay below 2**35, not 2**37: a group's level takes two bits of its payload."""


class InoKind(enum.IntEnum):
    """What an inode number of the archive stands for."""

    FIXED = 0
    INSTANCE = 1
    PATIENTS_FOLDER = 2
    VERSIONS_FOLDER = 3


@dataclass(frozen=True, slots=True)
class Ino:
    """An inode number taken apart; what the kind does not use is None."""

    kind: InoKind
    number: int | None = None
    """Of the fixed node, patient, study or series."""
    level: Level | None = None
    id: InstanceId | None = None
    """The instance, or the first instance of a group folder."""


def fixed_ino(number: int) -> int:
    """Inode number of a fixed node.  Raises ValueError beyond 60 bits, as all below do for theirs."""
    return _pack(InoKind.FIXED, _below(number, 1 << _KIND_SHIFT))


def instance_ino(instance: InstanceId) -> int:
    """Inode number of an instance's bytes."""
    return _pack(InoKind.INSTANCE, _instance_payload(instance, 1 << SERIES_BITS))


def folder_ino(level: Level, number: int) -> int:
    """Inode number of a folder under ``patients/``."""
    return _pack(InoKind.PATIENTS_FOLDER, level << _LEVEL_SHIFT | _below(number, _NUMBER_LIMIT))


def versions_folder_ino(level: Level, number: int) -> int:
    """Inode number of the same folder under ``versions/``."""
    return _pack(InoKind.VERSIONS_FOLDER, level << _LEVEL_SHIFT | _below(number, _NUMBER_LIMIT))


def versions_group_ino(first: InstanceId) -> int:
    """Inode number of the folder ``versions/.../<name>/``, by the first instance that had the name."""
    return _pack(InoKind.VERSIONS_FOLDER, _instance_payload(first, GROUP_SERIES_LIMIT))


def is_archive_ino(ino: int) -> bool:
    """Whether the number belongs to the archive's trees (and not to ``incoming/``)."""
    return MARK <= ino < MARK << 1


def parse_ino(ino: int) -> Ino:
    """Takes an inode number apart.  Raises ValueError where it is not one of the archive's."""
    if not is_archive_ino(ino):
        msg = f"inode number {ino:#x} is not the archive's"
        raise ValueError(msg)
    kind = InoKind(ino >> _KIND_SHIFT & 3)
    payload = ino & _PAYLOAD
    if kind is InoKind.FIXED:
        return Ino(kind, number=payload)
    if kind is InoKind.INSTANCE:
        return Ino(kind, id=_instance(payload))
    level = payload >> _LEVEL_SHIFT
    if level == 0 and kind is InoKind.VERSIONS_FOLDER:
        return Ino(kind, id=_instance(payload))
    if level == 0:
        msg = f"inode number {ino:#x} names no folder"
        raise ValueError(msg)
    return Ino(kind, number=payload & (_NUMBER_LIMIT - 1), level=Level(level))


def _pack(kind: InoKind, payload: int) -> int:
    return MARK | kind << _KIND_SHIFT | payload


def _below(number: int, limit: int) -> int:
    if not 0 <= number < limit:
        msg = f"{number} does not fit an inode number"
        raise ValueError(msg)
    return number


def _instance_payload(instance: InstanceId, series_limit: int) -> int:
    return _below(instance.series, series_limit) << POSITION_BITS | _below(
        instance.position, 1 << POSITION_BITS
    )


def _instance(payload: int) -> InstanceId:
    return InstanceId(payload >> POSITION_BITS, payload & ((1 << POSITION_BITS) - 1))
