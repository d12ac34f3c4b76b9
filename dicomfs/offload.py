"""Threads for what may block: one named limiter for each kind of work, so that no kind starves another.

Owns the numbers and the hop.  A hop costs about 60 µs; what is a point read of the catalog stays inline.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

SYNCS = 16
"""Who syncs waits for the disk, not for a processor, and what waits together is written together."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Work(enum.Enum):
    """Kinds of blocking work."""

    LIST = "list"
    """Scans of the catalog for a folder's entries."""
    OPEN = "open"
    """Finding and decoding header bytes; may wait for a tier."""
    READ = "read"
    """Decoding frames; may wait for a tier."""
    ASK = "ask"
    """Questions of administrators: extended attributes, the status document, free space."""
    NAMES = "names"
    """Names and attributes under ``incoming/``: short, but they may ask the disk."""
    DATA = "data"
    """Reading and writing files under ``incoming/``."""
    SYNC = "sync"
    """Waiting for the disk: fsync, and accepting what was closed."""
    AHEAD = "ahead"
    """Decoding ahead of readers: a reader who waits for one of these leaves its processor to the other."""


def limits(processors: int) -> dict[Work, int]:
    """Threads for each kind.

    Readers may wait for a tier, so there are more of them than processors; decoding itself is bounded by
    single flight in the decoded cache.
    """
    return {
        Work.LIST: 2,
        Work.OPEN: 2 * processors + 2,
        Work.READ: 2 * processors + 2,
        Work.ASK: 2,
        Work.NAMES: processors + 2,
        Work.DATA: 2 * processors + 2,
        Work.SYNC: SYNCS,
        Work.AHEAD: processors,
    }


class Offload:
    """Runs blocking calls in threads.  Belongs to the trio thread."""

    def __init__(self) -> None:
        processors = len(os.sched_getaffinity(0))
        self._limiters = {work: trio.CapacityLimiter(count) for work, count in limits(processors).items()}

    def limit(self, work: Work) -> int:
        """How many calls of a kind run at once."""
        return int(self._limiters[work].total_tokens)

    async def run(self, work: Work, call: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run a call in a thread of its kind and return what it returns; raises what it raises.

        When the caller is cancelled (at unmount only) it is answered at once; the thread ends by itself.
        """
        limiter = self._limiters[work]
        return await trio.to_thread.run_sync(call, *arguments, limiter=limiter, abandon_on_cancel=True)
