"""What was not taken when it was closed is looked at again once nobody changed it for a while.

Owns the thread, the times, and the walk over ``incoming/`` at the start of a mount, which finds what an
earlier one left.  What a look means is the caller's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from dicomfs.errors import DicomfsError

RETRY_SECONDS = 60.0
"""After a full disk or another failure."""
STEP_SECONDS = 1.0

_log = logging.getLogger(__name__)

Look = Callable[[int, bytes], float | None]
"""Look at (inode number, file handle): None when that is settled, else seconds after which to look again."""


class QuietWatch:
    """A thread that looks at files later.  ``watch`` may be called by any thread."""

    def __init__(self, look: Look, find: Callable[[], Iterator[tuple[int, bytes]]], seconds: float) -> None:
        self._look, self._find, self._seconds = look, find, seconds
        self._due: dict[tuple[int, bytes], float] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicomfs-quiet", daemon=True)

    def start(self) -> None:
        """Begin: first with what lies there."""
        self._thread.start()

    def watch(self, number: int, handle: bytes) -> None:
        """Look at a file when it has been quiet; asked again, the time begins again."""
        with self._lock:
            self._due[number, handle] = time.monotonic() + self._seconds

    def stop(self) -> None:
        """End, after the look that is under way."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for number, handle in self._find():
                if self._stopping.is_set():
                    return
                self._settle((number, handle))
        except OSError as problem:
            _log.warning("the folder beneath incoming cannot be walked: %s", problem.strerror)
        while not self._stopping.wait(STEP_SECONDS):
            for key in self._ready():
                if self._stopping.is_set():
                    return
                self._settle(key)

    def _ready(self) -> list[tuple[int, bytes]]:
        now = time.monotonic()
        with self._lock:
            ready = [key for key, due in self._due.items() if due <= now]
            for key in ready:
                del self._due[key]
        return ready

    def _settle(self, key: tuple[int, bytes]) -> None:
        again: float | None
        try:
            again = self._look(*key)
        except (DicomfsError, OSError) as problem:
            _log.warning("inode %d under incoming not taken, trying again: %s", key[0], problem)
            again = RETRY_SECONDS
        if again is not None:
            with self._lock:
                self._due.setdefault(key, time.monotonic() + again)
