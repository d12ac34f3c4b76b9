"""Decoding ahead of sequential readers: who reads slice k of a series reads the next one by name.

Owns what to decode next and when to give up; the thread it runs in and the cache it fills are others'.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Protocol

from dicomfs.errors import DicomfsError
from dicomfs.model import InstanceId

DEPTH = 4
"""Files decoded ahead: with 512 KiB slices some 2 MiB, a few tens of milliseconds of decoding."""
WAITING = 4
"""Readers whose wish may wait; an older wish is dropped for a newer one."""

_log = logging.getLogger(__name__)


class SeriesOrder(Protocol):
    """Who comes next, and how it is decoded (dicomfs.vfs.Tree)."""

    def following(self, instance: InstanceId, count: int, /) -> list[InstanceId]:
        """The next instances in name order."""

    def prefetch(self, instance: InstanceId, /) -> None:
        """Fill the decoded cache; may block."""


class ReadAhead:
    """The wishes for decoding ahead, newest first.

    ``wish`` and ``has_wishes`` never block and belong to the thread that answers requests; ``work`` runs in
    another one.  A deque needs no lock for single appends and pops, and only ``wish`` writes the count.
    """

    def __init__(self, order: SeriesOrder) -> None:
        self._order = order
        self._wishes: deque[InstanceId] = deque(maxlen=WAITING)
        self._made = 0
        self._stopped = threading.Event()

    def wish(self, instance: InstanceId) -> None:
        """An instance was read: what follows it will be."""
        self._wishes.append(instance)
        self._made += 1

    def has_wishes(self) -> bool:
        """Whether there is something to do."""
        return bool(self._wishes)

    def stop(self) -> None:
        """Give up at the next file."""
        self._stopped.set()

    def work(self) -> None:
        """Serve the newest wish; a wish that arrives meanwhile ends it early.  May block.

        Errors are left to the reader who meets them: they are logged without the instance's attributes.
        """
        try:
            instance = self._wishes.pop()
        except IndexError:
            return
        made = self._made
        try:
            for following in self._order.following(instance, DEPTH):
                if self._made != made or self._stopped.is_set():
                    return
                self._order.prefetch(following)
        except DicomfsError as problem:
            _log.debug("reading ahead after %s ended: %s", instance, type(problem).__name__)
