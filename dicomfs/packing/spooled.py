"""Reading spooled files: bytes that were accepted and never change, on a disk that may fail.

Everything goes through ``pread``: a sector that cannot be read is an error with the file's name, where a
memory mapping would end the process with SIGBUS.  Only files too large for memory are mapped, after each of
their bytes was read once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError

_IN_MEMORY = 32 << 20
_STEP = 8 << 20
_SHORTER = "it is shorter than it was"


class UnreadableFile(DamagedError):
    """The disk does not give back an accepted file."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"spool/{path.parent.name}/{path.name}", f"cannot be read: {problem}")


@contextlib.contextmanager
def file_bytes(path: Path, *, read_first: bool = True) -> Iterator[mmap.mmap | bytes]:
    """All bytes of a file that nobody writes to.

    Without ``read_first`` a large file is mapped as it is: a bad sector ends the process then.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _IN_MEMORY:
            yield _read(file.fileno(), size)
            return
        step = memoryview(bytearray(_STEP))
        for offset in range(0, size if read_first else 0, _STEP):
            _fill(file.fileno(), step[: size - offset], offset)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


@contextlib.contextmanager
def spooled_bytes(path: Path, *, read_first: bool = True) -> Iterator[mmap.mmap | bytes]:
    """As `file_bytes`, of a spooled file.

    Raises:
        UnreadableFile: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            data = stack.enter_context(file_bytes(path, read_first=read_first))
        except OSError as problem:
            raise UnreadableFile(path, _text(problem)) from problem
        yield data


class SpooledRanges:
    """Reads ranges of one spooled file; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise UnreadableFile(path, _text(problem)) from problem

    def __enter__(self) -> SpooledRanges:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """These bytes; raises as `into` does."""
        data = np.empty(length, np.uint8)
        self.into(data, offset)
        return data.tobytes()

    def into(self, target: npt.NDArray[np.uint8], offset: int) -> None:
        """Fill ``target``, contiguous bytes, from ``offset`` of the file.

        Raises:
            UnreadableFile: the bytes cannot be read, or are not there.
        """
        try:
            _fill(self._descriptor, target.data, offset)
        except OSError as problem:
            raise UnreadableFile(self._path, _text(problem)) from problem


def _read(descriptor: int, size: int) -> bytes:
    parts, offset = [], 0
    while offset < size:
        part = os.pread(descriptor, size - offset, offset)
        if not part:
            raise OSError(_SHORTER)
        parts.append(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _fill(descriptor: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(descriptor, [target], offset)
        if not count:
            raise OSError(_SHORTER)
        target, offset = target[count:], offset + count


def _text(problem: OSError) -> str:
    return problem.strerror or str(problem)
