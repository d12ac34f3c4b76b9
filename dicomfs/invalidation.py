"""Keeps the kernel's cache true: reads the catalog's change feed and drops what each commit outdated.

Owns the watcher thread and the translation of a change into inode numbers and names.  The order that makes it
exact: a writer commits, then the kernel forgets; a request answered before the commit is still pending when
the drop arrives, and the kernel lets the drop wait for it.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from dicomfs.errors import DicomfsError
from dicomfs.index import inodes
from dicomfs.index.records import ROOT, Change
from dicomfs.model import Level
from dicomfs.vfs import PATIENTS_INODE, ROOT_INODE, VERSIONS_INODE

POLL_SECONDS = 0.1
READER_CHECK_SECONDS = 60.0
"""Slots of readers that died are freed this often: they would keep the index from reusing pages."""

_SESSION_OVER = frozenset((errno.ENOTCONN, errno.ENODEV, errno.EBADF, errno.EINVAL))

_log = logging.getLogger(__name__)


class ChangeFeed(Protocol):
    """The change feed of the catalog (dicomfs.index.Catalog)."""

    def last_change(self) -> int:
        """Number of the last commit."""

    def changes_since(self, mark: int, /) -> Sequence[Change] | None:
        """What commits after ``mark`` changed; None when the feed does not reach back that far."""

    def reader_check(self) -> object:
        """Free what readers that died still hold."""


class KernelCache(Protocol):
    """What the kernel has cached.  Calls may block; they raise OSError, ENOENT for what it does not know."""

    def drop_attributes(self, inode: int, /) -> None:
        """Forget what ``stat`` shows of an inode."""

    def drop_entry(self, parent: int, name: bytes, /) -> None:
        """Forget what a name means, and all below it that nobody uses."""


class Drop(NamedTuple):
    """One thing to forget: an entry of a folder, or the folder's own attributes (no name)."""

    inode: int
    name: bytes | None


EVERYTHING = (
    Drop(ROOT_INODE, b"patients"),
    Drop(ROOT_INODE, b"versions"),
    Drop(ROOT_INODE, None),
    Drop(PATIENTS_INODE, None),
    Drop(VERSIONS_INODE, None),
)
"""Dropping the entry of a folder prunes all that the kernel caches below it, so two entries are the tree."""


def drops_of(changes: Iterable[Change]) -> list[Drop]:
    """What to forget for these changes, each once, in both trees, entries before attributes."""
    drops: dict[Drop, None] = {}
    for change in changes:
        patients, versions = _folders(change.level, change.number)
        if change.name is None:
            drops[Drop(patients, None)] = drops[Drop(versions, None)] = None
            continue
        name = change.name.encode()
        drops[Drop(patients, name)] = drops[Drop(versions, name)] = None
    return sorted(drops, key=lambda drop: drop.name is None)


def _folders(level: int, number: int) -> tuple[int, int]:
    if level == ROOT:
        return PATIENTS_INODE, VERSIONS_INODE
    return inodes.folder_ino(Level(level), number), inodes.versions_folder_ino(Level(level), number)


class ChangeWatcher:
    """A thread that follows the change feed.

    It holds no lock that a request may want, and nothing else calls the kernel's cache.  ``start`` and
    ``stop`` belong to the thread that made it, ``nudge`` to any.
    """

    def __init__(self, feed: ChangeFeed, cache: KernelCache) -> None:
        self._feed, self._cache = feed, cache
        self._mark = feed.last_change()
        self._nudged = threading.Event()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="dicomfs-changes", daemon=True)

    def start(self) -> None:
        """Begin to follow the feed, from the change that was last when the watcher was made."""
        self._thread.start()

    def nudge(self) -> None:
        """Look at the feed now."""
        self._nudged.set()

    def stop(self, seconds: float) -> bool:
        """End; whether the thread ended within ``seconds`` (a drop may be waiting for a request)."""
        self._stopping = True
        self._nudged.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def follow(self) -> None:
        """Drop what changed since the last time.  Raises CatalogError, OSError."""
        last = self._feed.last_change()
        if last == self._mark:
            return
        changes = self._feed.changes_since(self._mark)
        for drop in EVERYTHING if changes is None else drops_of(changes):
            if self._stopping:
                return
            self._forget(drop)
        self._mark = last

    def _forget(self, drop: Drop) -> None:
        try:
            if drop.name is None:
                self._cache.drop_attributes(drop.inode)
            else:
                self._cache.drop_entry(drop.inode, drop.name)
        except FileNotFoundError:
            return  # the kernel does not know it

    def _run(self) -> None:
        next_check = time.monotonic() + READER_CHECK_SECONDS
        while not self._stopping:
            self._nudged.wait(POLL_SECONDS)
            self._nudged.clear()
            due = time.monotonic() >= next_check
            if due:
                next_check = time.monotonic() + READER_CHECK_SECONDS
            if not self._step(check_readers=due):
                return

    def _step(self, *, check_readers: bool) -> bool:
        """One round; False when the session is over.  What fails is tried again at the next round."""
        try:
            self.follow()
            if check_readers:
                self._feed.reader_check()
            self._failing = False
        except (DicomfsError, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno in _SESSION_OVER:
                return False
            if not self._failing:
                _log.warning("the change feed cannot be followed, retrying: %s", problem)
            self._failing = True
        return True
