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
"""Files decoded ahead of a reader: with 512 KiB slices 2 MiB, a few tens of milliseconds of decoding."""
WAITING = 4
"""Readers whose wish may wait; an older wish is dropped for a newer one."""
REMEMBERED = 64
"""Instances not decoded ahead twice: the wishes of one reader overlap."""

_log = logging.getLogger(__name__)


class SeriesOrder(Protocol):
    """Who comes next, and how it is decoded (dicomfs.vfs.Tree)."""

    def following(self, instance: InstanceId, count: int, /) -> list[InstanceId]:
        """The next instances in name order."""

    def prefetch(self, instance: InstanceId, /) -> None:
        """Fill the decoded cache; may block."""


class ReadAhead:
    """What to decode ahead, the newest reader's first.

    ``wish`` never blocks and belongs to the thread that answers requests: it only appends to a deque.
    ``work`` runs in as many other threads as there are processors to use; the lock guards the plan and is
    held during catalog reads, never while something is decoded.
    """

    def __init__(self, order: SeriesOrder) -> None:
        self._order = order
        self._wishes: deque[InstanceId] = deque(maxlen=WAITING)
        self._plan: deque[InstanceId] = deque()
        self._taken: deque[InstanceId] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self._stopped = False

    def wish(self, instance: InstanceId) -> None:
        """An instance was read: what follows it will be."""
        self._wishes.append(instance)

    def stop(self) -> None:
        """Give up at the next file."""
        self._stopped = True

    def work(self) -> None:
        """Decode ahead until nothing is left to do.  May block.

        Errors are left to the reader who meets them: they are logged without the instance's attributes.
        """
        try:
            while (instance := self._next()) is not None:
                self._order.prefetch(instance)
        except DicomfsError as problem:
            _log.debug("reading ahead ended: %s", type(problem).__name__)

    def _next(self) -> InstanceId | None:
        with self._lock:
            while self._wishes:
                self._follow(self._wishes.popleft())
            if self._stopped or not self._plan:
                return None
            instance = self._plan.popleft()
            self._taken.append(instance)
            return instance

    def _follow(self, instance: InstanceId) -> None:
        """Put what follows an instance before what is planned already, and bound the plan."""
        following = self._order.following(instance, DEPTH)
        new = [other for other in following if other not in self._taken]
        old = [other for other in self._plan if other not in new]
        self._plan = deque([*new, *old][: WAITING * DEPTH])
