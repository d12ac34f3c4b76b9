"""Restores of cold objects that readers ask for: each begun once, and looked after without haste.

Owns when a tier is asked whether an object can be read by now, and who waits for it.  A restore takes minutes
to days: most readers get an error at once, and come again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from dicomfs.errors import ObjectCold
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ObjectStat

LOOK_SECONDS = 60.0
"""How long what a tier said of a cold object is believed."""
_WAITERS = 2
"""Readers that wait at the same time: they hold threads that others read with."""


class Restoring(Protocol):
    """What is needed of a tier."""

    @property
    def name(self) -> str:
        """Of the tier."""

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""


class Restores:
    """The restores that were begun here.  Thread-safe."""

    def __init__(
        self,
        wait_seconds: float = 0.0,
        closed: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``wait_seconds`` is how long a reader waits; nobody does once ``closed`` is set."""
        self._wait_seconds, self._clock = wait_seconds, clock
        self._closed = closed or threading.Event()
        self._looked: dict[tuple[str, ObjectKey], float] = {}
        self._waiters = threading.Semaphore(_WAITERS)
        self._lock = threading.Lock()

    def require_thawed(self, tier: Restoring, key: ObjectKey) -> bool:
        """See that a restore that was begun has ended; whether there was one.

        The tier is asked once a minute at most.

        Raises:
            ObjectCold: it goes on.
            TierError: the tier cannot be asked.
        """
        with self._lock:
            looked = self._looked.get((tier.name, key))
        if looked is None:
            return False
        if self._clock() - looked < LOOK_SECONDS:
            raise ObjectCold(tier.name, key, restoring=True)
        if not tier.stat(key).cold:
            with self._lock:
                self._looked.pop((tier.name, key), None)
            return True
        self._note(tier.name, key, self._clock())
        raise ObjectCold(tier.name, key, restoring=True)

    def begin(self, tier: Restoring, key: ObjectKey) -> None:
        """Begin to restore an object, unless that is under way.  Raises TierError."""
        with self._lock:
            if (tier.name, key) in self._looked:
                return
            # Noted first: of those who ask at the same time, one asks the tier.
            self._looked[tier.name, key] = self._clock()
        try:
            tier.restore(key)
        except BaseException:
            with self._lock:
                self._looked.pop((tier.name, key), None)
            raise

    def wait(self, tier: Restoring, key: ObjectKey) -> bool:
        """Wait as long as a reader may for an object; whether it can be read now.  Raises TierError."""
        if not self._wait_seconds or not self._waiters.acquire(blocking=False):
            return False
        try:
            end, pause = self._clock() + self._wait_seconds, max(1.0, min(30.0, self._wait_seconds / 10))
            while (left := end - self._clock()) > 0:
                if self._closed.wait(min(pause, left)):
                    return False
                if not tier.stat(key).cold:
                    self._note(tier.name, key, looked=-math.inf)
                    return True
            return False
        finally:
            self._waiters.release()

    def _note(self, tier: str, key: ObjectKey, looked: float) -> None:
        with self._lock:
            self._looked[tier, key] = looked
