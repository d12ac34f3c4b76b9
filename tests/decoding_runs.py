"""Runs of values for tests of decoding, and readers in threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from dicomfs.decoded import BytesCache
from dicomfs.decoding import Decoding, Steps, Wanted
from dicomfs.errors import CodecError, DicomfsError, MismatchError

Key = tuple[str, int]
PATIENCE_S = 60


@dataclass
class Source:
    """Runs of ten values whose steps wait for permission; notes what was made."""

    length: int = 10
    free: bool = True
    broken_at: int = -1
    wrong_at: int = -1
    made: list[Key] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wanted(self, name: str, place: int, *, finish: bool = True) -> Wanted[Key]:
        return Wanted(
            name, place, max(10, self.length), lambda at: (name, at), lambda: self._open(name), finish
        )

    def _open(self, name: str) -> tuple[int, Steps]:
        self.opened.append(name)
        return 0, self._steps(name)

    def _steps(self, name: str) -> Steps:
        try:
            for place in range(self.length):
                if not self.free:
                    assert self.permits.acquire(timeout=PATIENCE_S)
                if place == self.broken_at:
                    raise CodecError("test", "broken")
                self.made.append((name, place))
                value: bytes | DicomfsError = f"{name}{place}".encode()
                yield place, MismatchError("test") if place == self.wrong_at else value
        finally:
            self.closed.append(name)


def make(threads: int = 2, limit_bytes: int = 1 << 20) -> Decoding[Key]:
    return Decoding(BytesCache(limit_bytes), threads)


def begin(found: Decoding[Key], wanted: Wanted[Key], beside: Sequence[Wanted[Key]] = ()) -> Future[bytes]:
    """Fetch in a thread of its own; it is made there, or waited for, or done."""
    result: Future[bytes] = Future()

    def read() -> None:
        try:
            result.set_result(found.fetch(wanted, beside))
        except Exception as problem:
            result.set_exception(problem)

    threading.Thread(target=read, daemon=True).start()
    until(lambda: result.done() or wanted.place in waited_for(found, wanted.run))
    return result


def waited_for(found: Decoding[Key], run: Hashable) -> list[int]:
    with found._lock:
        return list(found._runs[run].waiting) if run in found._runs else []


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)
