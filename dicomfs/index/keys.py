"""The declared key table of both environments: every table's name, key parts, value, writer and origin.

Owns the layout of keys (big-endian, so that LMDB's order is the numeric one) and the short form of
object keys.  The values' layout is in records.py and parts.py.  Nothing here touches LMDB.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicomfs.model import ObjectKey, PackKind

CATALOG = "catalog"
SPOOL = "spool"


class Part(enum.IntEnum):
    """Type of a key's part: its width in bytes; TAIL takes the rest and comes last."""

    TAIL = 0
    U8 = 1
    U24 = 3
    U40 = 5
    U64 = 8
    DIGEST = 16


@dataclass(frozen=True, slots=True)
class Table:
    """One named database of an environment."""

    name: str
    environment: str
    key: tuple[tuple[str, Part], ...]
    value: str
    writer: str
    """Which call writes it."""
    rebuilt: str
    """What it is rebuilt from when the index is lost."""
    duplicates: bool = False
    """Sorted values of one fixed size under each key (LMDB's DUPSORT and DUPFIXED)."""
    since: int = 1
    """The schema version it came with: an older index gets it, empty, before it is upgraded."""

    def pack(self, *parts: int | bytes) -> bytes:
        """Bytes of a key, or of its first parts to scan by.  Raises OverflowError for numbers too large."""
        return b"".join(
            part if isinstance(part, bytes) else part.to_bytes(kind, "big")
            for part, (_, kind) in zip(parts, self.key, strict=False)
        )

    def numbers(self, key: bytes) -> list[int]:
        """The integer parts of a key, in order; DIGEST and TAIL are left out."""
        found, at = [], 0
        for _, kind in self.key:
            if kind not in (Part.TAIL, Part.DIGEST):
                found.append(int.from_bytes(key[at : at + kind], "big"))
            at += kind
        return found


def _table(
    name: str,
    environment: str,
    key: dict[str, Part],
    value: str,
    writer: str,
    rebuilt: str,
    *,
    duplicates: bool = False,
    since: int = 1,
) -> Table:
    return Table(name, environment, tuple(key.items()), value, writer, rebuilt, duplicates, since)


_LEVEL_NUMBER = {"level": Part.U8, "number": Part.U40}
_SERIES_POSITION = {"series": Part.U40, "position": Part.U24}
_ADD_NODE = "CatalogWriter.add_patient, add_study, add_series"
_PACKS = "header packs"

META = _table("meta", CATALOG, {"name": Part.TAIL}, "by name", "all", "archive.json, packs, journal")
NODES = _table("nodes", CATALOG, _LEVEL_NUMBER, "StoredNode", _ADD_NODE, _PACKS)
NODE_KEYS = _table("node_keys", CATALOG, {"identity": Part.DIGEST}, "level u8, number u40", _ADD_NODE, _PACKS)
CHILDREN = _table(
    "children",
    CATALOG,
    {"level": Part.U8, "parent": Part.U40, "folded folder name": Part.TAIL},
    "number u40",
    _ADD_NODE,
    _PACKS,
)
PARTS = _table(
    "parts", CATALOG, {"series": Part.U40, "part": Part.U24}, "parts.py", "CatalogWriter.commit_part", _PACKS
)
HOLDINGS = _table("holdings", CATALOG, {"series": Part.U40}, "Holding", "CatalogWriter.commit_part", "parts")
UIDS = _table(
    "uids",
    CATALOG,
    {"first byte of the UID's hash": Part.U8},
    "5 bytes of the hash, series u40, position u24",
    "CatalogWriter.commit_part",
    "parts",
    duplicates=True,
)
MOVING = _table(
    "moving",
    CATALOG,
    {"series": Part.U40, "part": Part.U24},
    "empty",
    "CatalogWriter.commit_part",
    "not needed",
)
VERSIONS = _table("versions", CATALOG, _SERIES_POSITION, "Version", "CatalogWriter.set_version", "journal")
OBJECTS = _table(
    "objects", CATALOG, {"object": Part.TAIL}, "StoredObject", "CatalogWriter.add_object", "tiers' listings"
)
REFERENCES = _table(
    "references",
    CATALOG,
    {"header object": Part.TAIL},
    "list of objects",
    "CatalogWriter.set_references",
    _PACKS,
)
INTENTS = _table(
    "intents", CATALOG, {"object": Part.TAIL}, "StoredIntent", "CatalogWriter.add_intent", "not needed"
)
NEEDS = _table(
    "needs",
    CATALOG,
    {"series": Part.U40, "part": Part.U24},
    "list of objects",
    "CatalogWriter.set_needs",
    _PACKS,
    since=2,
)
PINS = _table(
    "pins", CATALOG, {"series": Part.U40}, "time u64", "CatalogWriter.set_pinned", "journal", since=2
)
USED = _table(
    "used",
    CATALOG,
    {"object": Part.TAIL},
    "time u64",
    "CatalogWriter.note_used",
    "lost without harm",
    since=2,
)
USES = _table(
    "uses",
    CATALOG,
    {"length of the object's key": Part.U8, "object, and who needs it": Part.TAIL},
    "empty",
    "CatalogWriter.commit_part, set_references, stand_in",
    "parts, references, stand-ins",
    since=2,
)
CONDEMNED = _table(
    "condemned",
    CATALOG,
    {"object": Part.TAIL},
    "StoredCondemned",
    "CatalogWriter.condemn",
    "not needed",
    since=2,
)
FORGOTTEN = _table(
    "forgotten", CATALOG, _SERIES_POSITION, "time u64", "CatalogWriter.forget", "journal", since=2
)
HELD = _table(
    "held",
    CATALOG,
    {"level, 4 for instances": Part.U8, "number": Part.U40, "position": Part.U24},
    "StoredHold",
    "CatalogWriter.hold",
    "journal",
    since=2,
)
CHANGED = _table("changed", CATALOG, _LEVEL_NUMBER, "time u64", "every commit", "the time of recovery")
FEED = _table("feed", CATALOG, {"sequence": Part.U64}, "list of changes", "every commit", "not needed")

SPOOL_META = _table("meta", SPOOL, {"name": Part.TAIL}, "by name", "all", "spool files")
SPOOLED = _table("spooled", SPOOL, _SERIES_POSITION, "StoredSpooled", "SpoolWriter.add", "spool files")
SPOOLED_UIDS = Table("uids", SPOOL, UIDS.key, UIDS.value, "SpoolWriter.add", "spool files", duplicates=True)
SPOOLED_NAMES = _table(
    "names",
    SPOOL,
    {"series": Part.U40, "instance number, all ones if none": Part.U64},
    "position u24",
    "SpoolWriter.add",
    "spool files",
    duplicates=True,
)
POSITIONS = _table(
    "positions", SPOOL, {"series": Part.U40}, "next position u32", "SpoolWriter.add", "spool files"
)
SPOOL_CHANGED = _table("changed", SPOOL, _LEVEL_NUMBER, "time u64", "every commit", "the time of the rebuild")
SPOOL_FEED = _table("feed", SPOOL, {"sequence": Part.U64}, "list of changes", "every commit", "not needed")

CATALOG_TABLES = (
    META, NODES, NODE_KEYS, CHILDREN, PARTS, HOLDINGS, UIDS, MOVING, VERSIONS, OBJECTS, REFERENCES, INTENTS,
    USES, CONDEMNED, FORGOTTEN, HELD, NEEDS, PINS, USED, CHANGED, FEED,
)  # fmt: skip
SPOOL_TABLES = (SPOOL_META, SPOOLED, SPOOLED_UIDS, SPOOLED_NAMES, POSITIONS, SPOOL_CHANGED, SPOOL_FEED)

_PACK_BY_PREFIX = {kind.prefix: kind for kind in PackKind}
_JOURNAL = 0x80
_OTHER = 0xFF


def pack_object_key(key: ObjectKey) -> bytes:
    """Short form of an object key: 33 bytes for packs, 9 for journal objects, any other in full."""
    prefix, _, rest = key.partition("/")
    digest = rest.rpartition("/")[2]
    try:
        if prefix in _PACK_BY_PREFIX:
            short = bytes((_PACK_BY_PREFIX[prefix],)) + bytes.fromhex(digest)
        else:
            short = bytes((_JOURNAL,)) + bytes.fromhex(digest)
        if len(short) in (9, 33) and unpack_object_key(short) == key:
            return short
    except ValueError:
        pass  # not hexadecimal: kept in full
    return bytes((_OTHER,)) + key.encode()


def unpack_object_key(short: bytes) -> ObjectKey:
    """The object key of a short form.  Raises ValueError for what `pack_object_key` never makes."""
    kind, rest = short[0], short[1:]
    if kind == _OTHER:
        return ObjectKey(rest.decode())
    if kind == _JOURNAL:
        return ObjectKey(f"journal/{rest.hex()}")
    digest = rest.hex()
    return ObjectKey(f"{PackKind(kind).prefix}/{digest[:2]}/{digest}")
