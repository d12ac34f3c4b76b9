"""Dying at a chosen event: every call that changes what is durable counts as one.

Owns the wrapping of those calls in the present process, which dies without cleaning up: `os._exit` runs
no handlers, no finally blocks and gives other threads no time.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dicomfs import system_calls
from dicomfs.index.env import Environment, WriteTxn

KILLED = 137
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
"""The file system stops at once, its journal as it is on the disk: what a power cut does to it."""
_CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "setxattr", "removexattr")


@dataclass
class Events:
    """Counts events from 0 on; ends the process just before or just after the one that is chosen."""

    root: Path
    at: int = -1
    after: bool = False
    power: bool = False
    """Whether the disk of ``root`` goes with the process: what was not synced is lost (ext4)."""
    seen: list[str] = field(default_factory=list)
    """What happened so far, as ``call place``: places are below ``root``, without numbers and names."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def event(self, call: str, place: str) -> Iterator[None]:
        """Around one call."""
        with self._lock:
            number = len(self.seen)
            self.seen.append(f"{call} {place}")
            if number == self.at and not self.after:
                self._die()
        try:
            yield
        finally:
            if number == self.at:
                self._die()

    def _die(self) -> NoReturn:
        if self.power:
            descriptor = os.open(self.root, os.O_RDONLY)
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("@I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        os._exit(KILLED)

    def install(self) -> None:
        """Wrap every durable primitive for the rest of this process."""
        for name in _CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        touch = Path.touch

        def touched(path: Path, *args: Any, **named: Any) -> None:
            with self.event("touch", self._place(path)):
                touch(path, *args, **named)

        Path.touch = touched  # type: ignore[method-assign, assignment]
        system_calls.punch = self._wrapped("punch", system_calls.punch)
        self._wrap_commits()

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(target: Any, *args: Any, **named: Any) -> Any:
            # A link or a rename is about the new name.
            shown = args[0] if name in ("link", "rename", "replace") else target
            with self.event(name, self._place(shown)):
                return call(target, *args, **named)

        return wrapped

    def _wrap_commits(self) -> None:
        write = Environment.write

        @contextmanager
        def committed(environment: Environment) -> Iterator[WriteTxn]:
            opened = write(environment)
            txn = opened.__enter__()  # a commit is what follows the block, so the block lies between
            try:
                yield txn
            except BaseException as problem:
                opened.__exit__(type(problem), problem, None)
                raise
            with self.event("commit", self._place(environment.folder)):
                opened.__exit__(None, None, None)

        Environment.write = committed  # type: ignore[method-assign, assignment]

    def _place(self, target: object) -> str:
        if isinstance(target, int):
            target = Path(f"/proc/self/fd/{target}").readlink()
        path = Path(os.fsdecode(target)) if isinstance(target, (str, bytes, os.PathLike)) else Path()
        try:
            parts = path.resolve().relative_to(self.root.resolve()).parts
        except ValueError:
            return "elsewhere"
        kept = [part for part in parts[:2] if not any(map(str.isdigit, part))]
        return "/".join(kept) or "."
