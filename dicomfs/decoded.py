"""The decoded cache: raw bytes of bands of frames, bounded, and each decoded once however many ask.

Owns memory and single flight; knows neither packs nor files.  All methods may be called from any thread:
one lock guards the tables and is never held while a value is made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class BytesCache(Generic[K]):
    """Least recently used values by key, bounded by the sum of their sizes in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used = 0
        self._values: OrderedDict[K, bytes] = OrderedDict()
        self._flights: dict[Hashable, Future[None]] = {}
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def get(self, key: K) -> bytes | None:
        """The value, or None; never blocks for long."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put_all(self, values: Mapping[K, bytes]) -> None:
        """Add values, dropping the least recently used ones beyond the limit."""
        with self._lock:
            for key, value in values.items():
                old = self._values.pop(key, None)
                self._used += len(value) - (len(old) if old is not None else 0)
                self._values[key] = value
            while self._used > self.limit_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._used -= len(dropped)

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._used = 0

    def fetch(self, key: K, flight: Hashable, make: Callable[[], Mapping[K, bytes]]) -> bytes:
        """The value, made by ``make`` when it is not held.

        ``make`` returns at least ``key``; calls with one ``flight`` run one after another, so that what the
        first one made serves the others.  What ``make`` raises reaches its own caller only: a waiter tries
        for itself.
        """
        while True:
            with self._lock:
                value = self._values.get(key)
                if value is not None:
                    self._values.move_to_end(key)
                    return value
                running = self._flights.get(flight)
                if running is None:
                    mine: Future[None] = Future()
                    self._flights[flight] = mine
                    break
            running.result()
        try:
            made = make()
            self.put_all(made)
            return made[key]
        finally:
            with self._lock:
                del self._flights[flight]
            mine.set_result(None)
