"""Values of the index: the public ones callers build on, and the stored ones with their version byte.

Stored records are msgpack arrays behind one version byte; fields are only ever appended, with defaults.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from dicomfs.errors import CatalogError
from dicomfs.model import InstanceId, ObjectKey, Subject

RECORD_VERSION = 1
ROOT = 0
"""Level of the root folder in `Change` and `changed_ns`; its number is 0."""


@dataclass(frozen=True, slots=True)
class PartRow:
    """One instance of a part; its index in the part is its row in the header pack."""

    position: int
    number: int | None
    """Instance Number; None where missing."""
    name_level: int
    """0, 1 or 2: how much of the UID's hash its name carries."""
    sop_instance_uid: str
    size: int
    mtime_ns: int
    sha256: bytes
    """At least the first 8 bytes."""
    order: int
    """Place along the slices of the series; any ascending numbers."""


@dataclass(frozen=True, slots=True)
class SpooledRecord:
    """One accepted instance whose raw bytes lie in the spool."""

    id: InstanceId
    sop_instance_uid: str
    number: int | None
    name_level: int
    size: int
    mtime_ns: int
    sha256: bytes
    """All 32 bytes."""
    provisional: bool = False
    """Whether it may be withdrawn: it goes when the file that it was taken from changes."""


@dataclass(frozen=True, slots=True)
class PartRef:
    """Where a packed instance's record lies: the header pack, the part within it, the row within the part."""

    header_key: ObjectKey
    part_index: int
    row: int


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One committed part of a series."""

    series: int
    part: int
    header_key: ObjectKey
    part_index: int
    rows: int
    logical_bytes: int
    committed_ns: int
    """When it was committed to this index: packed, or recovered."""


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """An object and its placements."""

    key: ObjectKey
    size: int
    tiers: dict[str, int]
    """Tier name to the time (ns) when it was last verified there."""
    profile: str = ""
    """Of a pack of frames: the profile it was packed with, empty where nobody noted it."""
    kept: str = ""
    """The profile to which moving it was found to gain nothing."""
    twin_of: ObjectKey | None = None
    """Of a twin: the pack whose frames it holds coded in another way."""

    def suits(self, profile: str) -> bool:
        """Whether coding it anew in a profile gains nothing, as far as is known."""
        return profile in (self.profile, self.kept)


@dataclass(frozen=True, slots=True)
class Family:
    """A pack and its twins: the same frames under the same numbers, read for the same names."""

    members: tuple[ObjectRecord, ...]
    """The pack itself first."""

    @property
    def tiers(self) -> dict[str, int]:
        """Tiers that hold any member, and when it was last verified there (ns)."""
        return {name: verified for one in reversed(self.members) for name, verified in one.tiers.items()}

    def on(self, tier: str) -> ObjectRecord | None:
        """The member that a tier holds."""
        return next((one for one in self.members if tier in one.tiers), None)

    def held(self) -> ObjectRecord:
        """The pack as if its twins' copies were its own: what rules and counts go by."""
        return replace(self.members[0], tiers=self.tiers)


@dataclass(frozen=True, slots=True)
class Intent:
    """An object somebody is about to place; keeps it alive."""

    key: ObjectKey
    owner: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class Hold:
    """What may not be forgotten."""

    subject: Subject
    reason: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class Condemned:
    """A copy of an object that is to go, unless somebody needs it again."""

    key: ObjectKey
    tier: str
    since_ns: int
    """0: at once, and so that nothing can bring it back."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that the kernel may have cached and must forget."""

    level: int
    """ROOT, or a Level."""
    number: int
    """Of the folder; 0 for ROOT."""
    name: str | None
    """None: the folder's listing and mtime changed.  Else: this entry now means other bytes or nothing."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the archive holds; an instance being moved from the spool into a part counts once."""

    patients: int
    studies: int
    series: int
    instances: int
    logical_bytes: int
    spool_instances: int
    """Records of the spool index, moved ones included until they are removed."""
    spool_bytes: int


class StoredNode(msgspec.Struct, array_like=True, frozen=True):
    """Patient, study or series: ``fields`` are the model's texts in their order, ``folder`` last.

    As UTF-8 that may carry lone surrogates of odd files.
    """

    parent: int
    fields: tuple[bytes, ...]


class StoredObject(msgspec.Struct, array_like=True, frozen=True):
    """Size and placements of an object; the rest are short keys.

    ``stand_in``: the one that is read in its place; ``twins`` of a pack, each of them with ``twin_of``.
    """

    size: int
    tiers: dict[str, int]
    profile: str = ""
    kept: str = ""
    stand_in: bytes = b""
    twins: tuple[bytes, ...] = ()
    twin_of: bytes = b""


class StoredCondemned(msgspec.Struct, array_like=True, frozen=True):
    """Tiers whose copy of an object is to go, each with the time (ns) since when."""

    tiers: dict[str, int]


class StoredHold(msgspec.Struct, array_like=True, frozen=True):
    """Why something is held, since when."""

    reason: str
    since_ns: int


class StoredIntent(msgspec.Struct, array_like=True, frozen=True):
    """Who is about to place an object, since when."""

    owner: str
    since_ns: int


class StoredSpooled(msgspec.Struct, array_like=True, frozen=True):
    """`SpooledRecord` without its id; the UID as UTF-8 that may carry lone surrogates of odd files."""

    uid: bytes
    number: int | None
    name_level: int
    size: int
    mtime_ns: int
    sha256: bytes
    provisional: bool = False


class StoredChanges(msgspec.Struct, array_like=True, frozen=True):
    """One feed entry; ``overflow`` means: more than is worth listing, forget everything."""

    time_ns: int
    changes: list[tuple[int, int, str | None]]
    overflow: bool = False


class Totals(msgspec.Struct, array_like=True):
    """Running totals of an environment's instances."""

    instances: int = 0
    logical_bytes: int = 0


_HOLDING = struct.Struct("<IIIQ")
_VERSION = struct.Struct("<IB")


@dataclass(slots=True)
class Holding:
    """What a series has packed, and its counters, which never go back."""

    next_position: int = 0
    next_part: int = 0
    instances: int = 0
    logical_bytes: int = 0

    def pack(self) -> bytes:
        """Bytes as stored."""
        return _HOLDING.pack(self.next_position, self.next_part, self.instances, self.logical_bytes)

    @classmethod
    def unpack(cls, value: bytes | None) -> Holding:
        """From stored bytes; an empty holding for None."""
        return cls() if value is None else cls(*_HOLDING.unpack(value))


def pack_version(version: int, conflict: int) -> bytes:
    """Value of the versions table."""
    return _VERSION.pack(version, conflict)


def unpack_version(value: bytes) -> tuple[int, int]:
    """Version and conflict class of a stored value."""
    version, conflict = _VERSION.unpack(value)
    return version, conflict


_T = TypeVar("_T")
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[object, msgspec.msgpack.Decoder[object]] = {}
_MAKING = threading.Lock()
"""Two threads that make decoders of one record at once end in a segmentation fault in msgspec."""


def pack_record(record: object) -> bytes:
    """A stored record's bytes."""
    return bytes((RECORD_VERSION,)) + _ENCODER.encode(record)


def unpack_record(value: bytes, kind: type[_T]) -> _T:
    """A stored record of ``kind``.  Raises CatalogError where the bytes are not one."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        with _MAKING:
            decoder = _DECODERS.setdefault(kind, msgspec.msgpack.Decoder(kind))
    if not value or value[0] != RECORD_VERSION:
        msg = f"catalog: a {kind.__name__} record has an unknown version; run `dicomfs recover`"
        raise CatalogError(msg)
    try:
        return decoder.decode(memoryview(value)[1:])  # type: ignore[return-value]  # the decoder was made for kind
    except (msgspec.MsgspecError, UnicodeError) as error:
        msg = f"catalog: a {kind.__name__} record is damaged; run `dicomfs recover`"
        raise CatalogError(msg) from error
