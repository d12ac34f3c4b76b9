"""When objects were last read: noted in memory, written to the catalog now and then.

Costs a reader one assignment.  Lost with the process, or with the index, without harm: then an object counts
as not read for longer than is true, and leaves a tier earlier.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dicomfs.errors import DicomfsError
from dicomfs.index.catalog import Catalog
from dicomfs.model import ObjectKey

WRITE_SECONDS = 300.0
_AT_ONCE = 1000
"""More would keep the catalog's one writer busy for long."""

_log = logging.getLogger(__name__)


class UseNotes:
    """Notes of one process.  Thread-safe."""

    def __init__(self, catalog: Catalog, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._catalog, self._clock_ns = catalog, clock_ns
        self._noted: dict[ObjectKey, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicomfs-used", daemon=True)

    def note(self, key: ObjectKey) -> None:
        """Note that an object, or what stands in for it, is read now."""
        self._noted[key] = self._clock_ns()

    def start(self) -> None:
        """Begin to write from time to time."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.write()

    def write(self) -> None:
        """Write what was noted since; what cannot be written is forgotten."""
        noted, self._noted = self._noted, {}
        try:
            placed = {self._catalog.placed(key): used_ns for key, used_ns in list(noted.items())}
            keys = list(placed)
            for first in range(0, len(keys), _AT_ONCE):
                with self._catalog.write() as writer:
                    writer.note_used({key: placed[key] for key in keys[first : first + _AT_ONCE]})
        except DicomfsError as problem:
            _log.warning("when objects were read was not noted: %s", problem)

    def _run(self) -> None:
        while not self._stopping.wait(WRITE_SECONDS):
            self.write()
