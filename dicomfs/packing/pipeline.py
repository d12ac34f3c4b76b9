"""Batches side by side: while one is sealed and committed, the next is read and encoded.

Two at a time: the steps of one batch that use no or one processor (planning, syncing, committing) are hidden
behind the other's encoding, and memory and staged bytes stay bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from dicomfs.errors import TierFull

AT_ONCE = 2
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Flight(Generic[T]):
    group: T
    future: Future[None]
    shared: bool
    """Another one was under way when it began."""


def side_by_side(groups: Iterable[T], work: Callable[[T], None], stop: threading.Event) -> None:
    """Do ``work`` for every group, `AT_ONCE` at a time, in their order; end early once ``stop`` is set.

    What a ``work`` raises is raised here, after ``stop`` was set and the other one has ended.  A group for
    which the disk was too full beside another is tried once more alone: what the other one releases may do.
    """
    window: deque[_Flight[T]] = deque()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="batch") as threads:
        try:
            for group in groups:
                if len(window) == AT_ONCE:
                    _finish(window, work)
                if stop.is_set():
                    break
                window.append(_Flight(group, threads.submit(work, group), bool(window)))
            while window:
                _finish(window, work)
        except BaseException:
            stop.set()
            raise


def _finish(window: deque[_Flight[T]], work: Callable[[T], None]) -> None:
    flight = window.popleft()
    try:
        flight.future.result()
    except TierFull:
        if not flight.shared and not window:
            raise
        wait([other.future for other in window])
        work(flight.group)
