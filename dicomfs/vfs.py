"""The mounted tree: which names lie where, what each inode number means, and which bytes it holds.

Owns the shape of ``/patients``, ``/versions`` and ``/.dicomfs`` and answers four questions about it: look up
a name, describe an inode, list a folder, open a file.  Knows nothing of FUSE (no errno, no timeouts, no
owner, no permission bits) and keeps no state about its callers: an inode number alone says what it names,
so there is nothing to remember between a lookup and a forget.
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from dicomfs.errors import NotFoundError
from dicomfs.index import inodes
from dicomfs.index.inodes import Ino, InoKind
from dicomfs.index.records import ROOT
from dicomfs.model import InstanceId, InstanceRow, Level
from dicomfs.name_order import NameOrder
from dicomfs.shown_folders import ShownFolders
from dicomfs.vfs_types import (
    Attributes,
    Entry,
    FileReader,
    InstanceReader,
    InstanceSource,
    Listing,
    TreeCatalog,
)

SUFFIX = ".dcm"
NAME_BYTES = 255
"""Longest name a lookup may ask for, in bytes (``NAME_MAX`` of Linux); ours have at most 80 and a suffix."""

STATUS_SECONDS = 1.0
"""How long one rendering of ``.dicomfs/status`` is shown, so that its size and its bytes agree."""


class Fixed(enum.IntEnum):
    """The nodes every mount has; the value is the number in their inode, except for the root."""

    ROOT = 0
    PATIENTS = 1
    VERSIONS = 2
    CONTROL = 3
    """``/.dicomfs``"""
    STATUS = 4
    """``/.dicomfs/status``"""


ROOT_INODE = 1
"""Inode number of the top folder, as FUSE wants it."""

_FIXED_CHILDREN: dict[Fixed, dict[str, Fixed]] = {
    Fixed.ROOT: {"patients": Fixed.PATIENTS, "versions": Fixed.VERSIONS, ".dicomfs": Fixed.CONTROL},
    Fixed.CONTROL: {"status": Fixed.STATUS},
}


PATIENTS_INODE = inodes.fixed_ino(Fixed.PATIENTS)
VERSIONS_INODE = inodes.fixed_ino(Fixed.VERSIONS)
STATUS_INODE = inodes.fixed_ino(Fixed.STATUS)
_SLOW = frozenset((inodes.fixed_ino(Fixed.CONTROL), STATUS_INODE))

T = TypeVar("T")


class StatusReader:
    """One rendering of the status document; any thread may call it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range."""
        return self._content[offset : offset + length]

    def read_ready(self, offset: int, length: int) -> bytes | None:
        """The bytes of a range; never blocks."""
        return self.read(offset, length)

    def close(self) -> None:
        """Nothing is held."""


class Tree:
    """The mounted tree.

    Any thread may call it: its caches hold immutable values, each replaced by a single assignment.
    ``attributes`` and ``lookup`` make point reads only, unless ``may_block`` says otherwise; ``listing``,
    ``open`` and whatever concerns an open file may take long.
    """

    def __init__(
        self, catalog: TreeCatalog, instances: InstanceSource, status: Callable[[], Mapping[str, object]]
    ) -> None:
        self._catalog, self._instances, self._status = catalog, instances, status
        self._rendered = (float("-inf"), b"")
        self._shown, self._order = ShownFolders(catalog), NameOrder(catalog)

    def change(self) -> int:
        """Number of the last commit: what was read at a lower one may be outdated."""
        return self._catalog.last_change()

    def may_block(self, inode: int) -> bool:
        """Whether describing this inode, or a lookup in it, needs more than point reads."""
        return inode in _SLOW

    def attributes(self, inode: int) -> Attributes:
        """Describe an inode.  Raises NotFoundError."""
        match _parse(inode):
            case Ino(InoKind.FIXED, number=Fixed.STATUS):
                rendered_s, content = self._render()
                return Attributes(inode, False, len(content), int(rendered_s * 1e9), is_volatile=True)
            case Ino(InoKind.FIXED):
                return Attributes(inode, True, 0, self._catalog.changed_ns(ROOT, 0))
            case Ino(InoKind.INSTANCE, id=InstanceId() as instance):
                return _file(self._catalog.row(instance))
            case Ino(id=InstanceId() as first):
                return self._group(first)
            case Ino(level=Level() as level, number=int(number)):
                return Attributes(inode, True, 0, self._catalog.changed_ns(level, number))
        raise _no_inode(inode)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Describe what a name means in a folder.  Raises NotFoundError, also for a parent that is none."""
        text = _text(name)
        match _parse(parent):
            case Ino(InoKind.FIXED, number=(Fixed.ROOT | Fixed.CONTROL) as fixed):
                child = _FIXED_CHILDREN[Fixed(fixed)].get(text)
                return self.attributes(_fixed_inode(_found(child)))
            case Ino(InoKind.FIXED, number=Fixed.PATIENTS):
                return self._folder(Level.PATIENT, 0, text)
            case Ino(InoKind.FIXED, number=Fixed.VERSIONS):
                return self._versions_folder(Level.PATIENT, 0, text)
            case Ino(InoKind.PATIENTS_FOLDER, level=Level.SERIES, number=int(series)):
                return _file(_found(self._catalog.row_named(series, text, 0)))
            case Ino(InoKind.PATIENTS_FOLDER, level=Level() as level, number=int(number)):
                return self._folder(Level(level + 1), number, text)
            case Ino(InoKind.VERSIONS_FOLDER, id=InstanceId() as first):
                return _file(_found(self._group_files(first).get(text)))
            case Ino(InoKind.VERSIONS_FOLDER, level=Level.SERIES, number=int(series)):
                return self._group(_found(_groups(self._catalog.rows(series)).get(text)))
            case Ino(InoKind.VERSIONS_FOLDER, level=Level() as level, number=int(number)):
                return self._versions_folder(Level(level + 1), number, text)
        raise _no_inode(parent)

    def listing(self, inode: int) -> Listing:
        """All entries of a folder; may block.  Raises NotFoundError, also for a file."""
        change = self._catalog.last_change()  # before the entries: a listing may be newer than it says
        return Listing(change, self._entries(inode))

    def open(self, inode: int) -> FileReader:
        """Open a file; may block.  Raises NotFoundError for what is no file."""
        if inode == STATUS_INODE:
            return StatusReader(self._render()[1])
        return self.open_instance(inode)

    def open_instance(self, inode: int) -> InstanceReader:
        """Open an instance, also to ask how it is stored; may block.  Raises NotFoundError."""
        return self._instances.open(_found(instance_of(inode)))

    def following(self, instance: InstanceId, count: int) -> list[InstanceId]:
        """The next shown instances of the series in name order: what a reader of this one reads next."""
        return self._order.following(instance, count)

    def prefetch(self, instance: InstanceId) -> None:
        """Decode an instance ahead of its readers; may block."""
        self._instances.prefetch(instance)

    def _entries(self, inode: int) -> list[Entry]:
        match _parse(inode):
            case Ino(InoKind.FIXED, number=(Fixed.ROOT | Fixed.CONTROL) as fixed):
                children = _FIXED_CHILDREN[Fixed(fixed)]
                return [
                    _entry(name, self.attributes(_fixed_inode(child))) for name, child in children.items()
                ]
            case Ino(InoKind.FIXED, number=Fixed.PATIENTS):
                return self._folder_entries(Level.PATIENT, 0)
            case Ino(InoKind.FIXED, number=Fixed.VERSIONS):
                return self._versions_entries(Level.PATIENT, 0)
            case Ino(InoKind.PATIENTS_FOLDER, level=Level.SERIES, number=int(series)):
                return [
                    _entry(row.name, _file(row)) for row in self._catalog.rows(series) if row.version == 0
                ]
            case Ino(InoKind.PATIENTS_FOLDER, level=Level() as level, number=int(number)):
                return self._folder_entries(Level(level + 1), number)
            case Ino(InoKind.VERSIONS_FOLDER, id=InstanceId() as first):
                return [_entry(name, _file(row)) for name, row in self._group_files(first).items()]
            case Ino(InoKind.VERSIONS_FOLDER, level=Level.SERIES, number=int(series)):
                groups = _groups(self._catalog.rows(series))
                return [_entry(name, self._group(first)) for name, first in groups.items()]
            case Ino(InoKind.VERSIONS_FOLDER, level=Level() as level, number=int(number)):
                return self._versions_entries(Level(level + 1), number)
        raise _no_inode(inode)

    def _folder(self, level: Level, parent: int, folder: str) -> Attributes:
        number = _found(self._catalog.child(level, parent, folder))
        return self.attributes(inodes.folder_ino(level, number))

    def _folder_entries(self, level: Level, parent: int) -> list[Entry]:
        return [
            _entry(node.folder, self.attributes(inodes.folder_ino(level, node.number)))
            for node in self._shown.patients_children(level, parent)
        ]

    def _versions_folder(self, level: Level, parent: int, folder: str) -> Attributes:
        number = _found(self._catalog.child(level, parent, folder))
        if number not in self._shown.versions(level, parent):
            raise NotFoundError("folder", f"{level.name.lower()} {number} under versions")
        return self.attributes(inodes.versions_folder_ino(level, number))

    def _versions_entries(self, level: Level, parent: int) -> list[Entry]:
        return [
            _entry(node.folder, self.attributes(inodes.versions_folder_ino(level, node.number)))
            for node in self._shown.versions_children(level, parent)
        ]

    def _group(self, first: InstanceId) -> Attributes:
        changed_ns = self._catalog.changed_ns(Level.SERIES, first.series)
        return Attributes(inodes.versions_group_ino(first), True, 0, changed_ns)

    def _group_files(self, first: InstanceId) -> dict[str, InstanceRow]:
        name = self._catalog.row(first).name
        rows = self._catalog.rows(first.series)
        return {f"{row.version}{SUFFIX}": row for row in rows if row.version and row.name == name}

    def _render(self) -> tuple[float, bytes]:
        if time.time() - self._rendered[0] > STATUS_SECONDS:
            document = json.dumps(self._status(), indent=2, sort_keys=True) + "\n"
            self._rendered = (time.time(), document.encode())
        return self._rendered


def instance_of(inode: int) -> InstanceId | None:
    """The instance whose bytes an inode number names, None for folders and the status file."""
    ino = _parse(inode)
    return ino.id if ino.kind is InoKind.INSTANCE else None


def _fixed_inode(node: Fixed) -> int:
    return ROOT_INODE if node is Fixed.ROOT else inodes.fixed_ino(node)


def _parse(inode: int) -> Ino:
    if inode == ROOT_INODE:
        return Ino(InoKind.FIXED, number=Fixed.ROOT)
    try:
        return inodes.parse_ino(inode)
    except ValueError:
        raise _no_inode(inode) from None


def _no_inode(inode: int) -> NotFoundError:
    return NotFoundError("inode", f"{inode:#x}")


def _text(name: bytes) -> str:
    """A name as the catalog writes it; what is no UTF-8 or too long is nowhere in the tree."""
    if len(name) > NAME_BYTES:
        raise NotFoundError("entry", f"of {len(name)} bytes")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NotFoundError("entry", "that is no UTF-8") from None


def _found(value: T | None) -> T:
    if value is None:
        raise NotFoundError("entry", "of the name asked for")
    return value


def _entry(name: str, attributes: Attributes) -> Entry:
    return Entry(name.encode(), attributes)


def _file(row: InstanceRow) -> Attributes:
    return Attributes(inodes.instance_ino(row.id), False, row.size, row.mtime_ns)


def _groups(rows: Sequence[InstanceRow]) -> dict[str, InstanceId]:
    """Name -> first instance, for the names of a series that have versions: each is a folder of that name."""
    named = [row for row in rows if row.version]
    names = {row.name for row in named}
    first: dict[str, InstanceId] = {}
    for row in rows:
        if row.name in names:
            first[row.name] = min(row.id, first.get(row.name, row.id))
    return first
