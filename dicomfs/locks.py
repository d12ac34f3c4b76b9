"""Locks between processes: one file each, held by an open file description.

The kernel drops them when their holder dies, however it dies, so a lock that can be taken proves that
nobody holds it: no process numbers, no times (they lie after a crash and in containers).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dicomfs.errors import CatalogBusy


def try_lock(path: Path) -> int | None:
    """Take the lock of ``path`` now; the descriptor that holds it, or None when it is held elsewhere."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, doing: str = "") -> Iterator[None]:
    """Hold the lock of ``path``.

    Raises:
        CatalogBusy: it is held by another process and ``wait`` is false.
    """
    descriptor = try_lock(path)
    if descriptor is None:
        if not wait:
            raise CatalogBusy(
                f"{doing or path.name}: another process is doing this; try again when it is done"
            )
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)
