"""Asking a long command to stop: the first signal asks, the second one interrupts.

Owns signal handlers for the length of a command's work; what stopping means is up to the use case.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dicomfs.cli import output

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the second of them raises KeyboardInterrupt."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        output.note("stopping; what is done is kept")

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
