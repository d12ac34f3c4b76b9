"""The list of files beneath ``incoming/`` that were accepted and still hold their bytes.

Owns one file of lines, each a file handle in hexadecimal digits; the first is that of the folder itself,
because the handles of a copied archive name files of the original.  It is a convenience and not synced: what
is lost from it costs space and is found again by the walk of the next mount.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dicomfs.locks import locked
from dicomfs.paths import create_private
from dicomfs.system_calls import handle_of


class WaitingList:
    """The list of one archive; several processes may use it."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._path, self._lock = folder / "waiting", folder / "waiting.lock"
        self._incoming = incoming

    def add(self, handle: bytes) -> None:
        """Add a file.  Raises OSError, EOPNOTSUPP where there are no file handles."""
        first = self._first_line()
        with locked(self._lock):
            if self._is_ours(first):
                with self._path.open("ab") as file:
                    file.write(_line(handle))
            else:
                self._exchange(first + _line(handle))

    def _first_line(self) -> bytes:
        descriptor = os.open(self._incoming, os.O_PATH | os.O_CLOEXEC)
        try:
            return _line(handle_of(descriptor))
        finally:
            os.close(descriptor)

    def _is_ours(self, first: bytes) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.readline() == first
        except FileNotFoundError:
            return False

    def _exchange(self, lines: bytes) -> None:
        fresh = self._path.with_suffix(".part")
        with create_private(fresh) as out:
            out.write(lines)
        fresh.replace(self._path)

    def work_off(self, release: Callable[[bytes], bool]) -> int:
        """Offer each file once; those taken leave the list.  Returns how many.  One caller at a time.

        A caller that dies leaves the list as it was.
        """
        first = self._first_line()
        with locked(self._lock):
            if not self._is_ours(first):
                return 0
            lines = self._path.read_bytes()
        kept: list[bytes] = []
        taken = 0
        for handle in dict.fromkeys(_handles(lines[len(first) :])):
            if release(handle):
                taken += 1
            else:
                kept.append(_line(handle))
        with locked(self._lock):
            added = self._path.read_bytes()[len(lines) :]
            self._exchange(first + b"".join(kept) + added)
        return taken


def _line(handle: bytes) -> bytes:
    return handle.hex().encode() + b"\n"


def _handles(lines: bytes) -> list[bytes]:
    found = []
    for line in lines.splitlines():
        try:
            found.append(bytes.fromhex(line.decode("ascii")))
        except ValueError:  # cut off by a crash
            continue
    return found
