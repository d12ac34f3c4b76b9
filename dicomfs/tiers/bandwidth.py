"""Bandwidth: a limit on bytes a second that all transfers of a tier share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.25
"""How much unused allowance is kept: short reads need not wait, and a line is never full for longer."""
_UNLIMITED_PIECE = 256 << 10
_LARGEST_PIECE = 64 << 10
_SMALLEST_PIECE = 1 << 10
_PIECES_PER_SECOND = 8
"""Transfers at the same time take turns; a server hangs up on one that pauses for longer than some 20 s."""


class Bandwidth:
    """A token bucket.  Thread-safe: whoever comes first waits least.

    It is given to a tier and not wrapped around one: a wrapper sees whole objects only, and would let a pack
    of a gigabyte go at full speed and wait afterwards.
    """

    def __init__(
        self,
        bytes_per_second: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without ``bytes_per_second``, nobody waits."""
        self.limited = bytes_per_second is not None
        self.piece = _UNLIMITED_PIECE
        """How many bytes a transfer should move, and take, at a time."""
        if bytes_per_second is not None:
            self.piece = min(max(bytes_per_second // _PIECES_PER_SECOND, _SMALLEST_PIECE), _LARGEST_PIECE)
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._taken_until = clock() - BURST_SECONDS

    def take(self, count: int) -> None:
        """Wait until ``count`` more bytes may be moved."""
        if not self.limited or count <= 0:
            return
        with self._lock:
            now = self._clock()
            self._taken_until = max(self._taken_until, now - BURST_SECONDS) + count * self._seconds_per_byte
            wait = self._taken_until - now
        if wait > 0:
            self._sleep(wait)
