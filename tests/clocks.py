"""Time that tests move by themselves."""

from __future__ import annotations


class Clock:
    """A monotonic clock that stands still but for pauses, which take no time; each is noted, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
