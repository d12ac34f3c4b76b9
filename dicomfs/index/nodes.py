"""Patients, studies and series within one transaction: by number, by identity, by folder name.

Folder names are compared case-folded when they are given out and exactly when they are looked up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from dicomfs.errors import CatalogError, NotFoundError
from dicomfs.index.env import ReadTxn, WriteTxn
from dicomfs.index.keys import CHILDREN, META, NODE_KEYS, NODES
from dicomfs.index.records import StoredNode, pack_record, unpack_record
from dicomfs.model import SERIES_BITS, Level, PatientNode, SeriesNode, StudyNode

Node: TypeAlias = PatientNode | StudyNode | SeriesNode

NUMBER_LIMIT = 1 << (SERIES_BITS - 2)
"""Numbers stay below 2**35, so that every inode number of inodes.py can carry them."""
_FOLDED_LIMIT = 500  # LMDB's keys end at 511 bytes; names are at most 80, which folding can triple


def _texts(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode("utf-8", "surrogatepass") for text in texts)


def _parts(node: Node) -> tuple[Level, int, tuple[bytes, ...], tuple[bytes, ...]]:
    """Level, parent, identity and all texts of a node."""
    match node:
        case PatientNode():
            identity = _texts(node.issuer, node.patient_id, node.name)
            return Level.PATIENT, 0, identity, (*identity, *_texts(node.folder))
        case StudyNode():
            texts = _texts(node.uid, node.date, node.description, node.folder)
            return Level.STUDY, node.patient, texts[:1], texts
        case SeriesNode():
            texts = _texts(node.uid, node.modality, node.series_number, node.description, node.folder)
            return Level.SERIES, node.study, texts[:1], texts


_MAKE: dict[Level, Callable[..., Node]] = {
    Level.PATIENT: lambda number, _, *texts: PatientNode(number, *texts),
    Level.STUDY: StudyNode,
    Level.SERIES: SeriesNode,
}


def _identity_key(level: Level, parent: int, identity: tuple[bytes, ...]) -> bytes:
    digest = hashlib.sha256(NODES.pack(level, parent))
    for text in identity:
        digest.update(len(text).to_bytes(4, "big") + text)
    return digest.digest()[:16]


def _child_key(level: Level, parent: int, folder: str) -> bytes:
    folded = folder.casefold().encode("utf-8", "surrogatepass")
    return CHILDREN.pack(level, parent, folded[:_FOLDED_LIMIT])


def get_node(txn: ReadTxn, level: Level, number: int) -> Node:
    """A node by number.  Raises NotFoundError."""
    value = txn.get(NODES, NODES.pack(level, number)) if 0 <= number < NUMBER_LIMIT else None
    if value is None:
        raise NotFoundError(level.name.lower(), str(number))
    stored = unpack_record(value, StoredNode)
    texts = [text.decode("utf-8", "surrogatepass") for text in stored.fields]
    return _MAKE[level](number, stored.parent, *texts)


def list_nodes(txn: ReadTxn, level: Level, parent: int) -> list[Node]:
    """The children of a parent, by case-folded folder name."""
    prefix = CHILDREN.pack(level, parent)
    return [get_node(txn, level, int.from_bytes(value, "big")) for _, value in txn.scan(CHILDREN, prefix)]


def list_numbers(txn: ReadTxn, level: Level) -> list[int]:
    """Numbers of all nodes of a level, in order."""
    return [NODES.numbers(key)[1] for key, _ in txn.scan(NODES, NODES.pack(level))]


def find_node(txn: ReadTxn, level: Level, parent: int, *identity: str) -> Node | None:
    """The node of an identity: issuer, ID and name of a patient, or the UID of a study or series."""
    texts = _texts(*identity)
    value = txn.get(NODE_KEYS, _identity_key(level, parent, texts))
    if value is None:
        return None
    node = get_node(txn, level, int.from_bytes(value[1:], "big"))
    return node if _parts(node)[2] == texts else None


def folder_taken(txn: ReadTxn, level: Level, parent: int, folder: str) -> bool:
    """Whether a folder name is given out, compared case-folded."""
    return txn.get(CHILDREN, _child_key(level, parent, folder)) is not None


def child_number(txn: ReadTxn, level: Level, parent: int, folder: str) -> int | None:
    """The child with exactly this folder name."""
    value = txn.get(CHILDREN, _child_key(level, parent, folder))
    if value is None:
        return None
    number = int.from_bytes(value, "big")
    return number if get_node(txn, level, number).folder == folder else None


def add_node(txn: WriteTxn, node: Node) -> tuple[Level, int, bool]:
    """Stores a node; returns its level, its parent and whether it is new.

    Raises NotFoundError without its parent, CatalogError for a number, identity or folder name that
    another node has.
    """
    level, parent, identity, texts = _parts(node)
    if not 1 <= node.number < NUMBER_LIMIT:
        msg = f"catalog: {level.name.lower()} number {node.number} is out of range"
        raise CatalogError(msg)
    if parent:
        get_node(txn, Level(level - 1), parent)
    key, record = NODES.pack(level, node.number), pack_record(StoredNode(parent, texts))
    present = txn.get(NODES, key)
    if present == record:
        return level, parent, False
    identity_key, child_key = _identity_key(level, parent, identity), _child_key(level, parent, node.folder)
    if present is not None or txn.get(NODE_KEYS, identity_key) or txn.get(CHILDREN, child_key):
        msg = f"catalog: {level.name.lower()} {node.number}: its number, identity or folder name is taken"
        raise CatalogError(msg)
    number = node.number.to_bytes(5, "big")
    txn.put(NODES, key, record)
    txn.put(NODE_KEYS, identity_key, bytes((level,)) + number)
    txn.put(CHILDREN, child_key, number)
    raise_counter(txn, level, node.number + 1)
    count = count_nodes(txn, level) + 1
    txn.put(META, _count_key(level), count.to_bytes(8, "big"))
    return level, parent, True


def count_nodes(txn: ReadTxn, level: Level) -> int:
    """How many nodes a level has."""
    return int.from_bytes(txn.get(META, _count_key(level)) or b"", "big")


def next_number(txn: ReadTxn, level: Level) -> int:
    """The first number of a level never reserved; numbers start at 1."""
    return int.from_bytes(txn.get(META, _next_key(level)) or b"\x01", "big")


def raise_counter(txn: WriteTxn, level: Level, least: int) -> None:
    """Makes sure that numbers below ``least`` are never given out.  Raises CatalogError beyond the limit."""
    if least > NUMBER_LIMIT:
        msg = f"catalog: all {level.name.lower()} numbers are used up"
        raise CatalogError(msg)
    if least > next_number(txn, level):
        txn.put(META, _next_key(level), least.to_bytes(8, "big"))


def _next_key(level: Level) -> bytes:
    return b"next/" + level.name.encode()


def _count_key(level: Level) -> bytes:
    return b"count/" + level.name.encode()
