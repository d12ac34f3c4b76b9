"""What all batches of one run of the packer, or of repack, share: threads, settings, the wish to stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicomfs.codec.base import Profile
from dicomfs.progress import Progress


class Stopped(Exception):
    """Somebody asked to stop.  Goes up to where work is begun, and no further."""


@dataclass(frozen=True, slots=True)
class PackRun:
    """One run.  ``pool`` does what costs processor time; nothing in it waits for another of its tasks."""

    pool: ThreadPoolExecutor
    workers: int
    """Threads of the pool."""
    profile: Profile
    reorder_bytes: int
    """Stacks above this are stored in the order they are read in."""
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise `Stopped` once somebody asked for it."""
        if self.stop.is_set():
            raise Stopped
