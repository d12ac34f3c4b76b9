"""How long-running use cases say how far they are.

Owns the protocol alone; what a person sees of it is drawn in cli/.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one task at a time; calls come from one thread."""

    def start(self, total: int | None, what: str) -> None:
        """Begin the task `what` (verb and noun, no patient attributes) of `total` bytes, None if unknown."""

    def advance(self, amount: int) -> None:
        """Count `amount` more bytes as done."""

    def done(self) -> None:
        """End the task begun last; without one, nothing happens."""


class NullProgress:
    """Listens to nothing."""

    def start(self, total: int | None, what: str) -> None:
        """Ignore."""

    def advance(self, amount: int) -> None:
        """Ignore."""

    def done(self) -> None:
        """Ignore."""


class SharedProgress:
    """Passes on what several threads report, one at a time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def start(self, total: int | None, what: str) -> None:
        """See Progress.start."""
        with self._lock:
            self._progress.start(total, what)

    def advance(self, amount: int) -> None:
        """See Progress.advance."""
        with self._lock:
            self._progress.advance(amount)

    def done(self) -> None:
        """See Progress.done."""
        with self._lock:
            self._progress.done()
