"""Source files: found below folders, opened without waiting, copied while they are still.

Owns what may be touched of a source and how: only regular files are opened (a FIFO would wait for ever, a
tape would rewind), nothing is followed into a folder through a link, and a file that changes while it is
copied is refused.  Knows nothing of DICOM.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomfs.errors import NotTakenError
from dicomfs.system_calls import clone

_COPY_BYTES = 1 << 20

Refuse = Callable[[NotTakenError], None]


def walk(source: Path, avoid: Path | None, refuse: Refuse) -> Iterator[tuple[Path, int]]:
    """Files at or below ``source`` with their sizes, in order of name.

    What cannot be entered, links to folders and the folder ``avoid`` are told to ``refuse``.  A link that is
    itself the source is followed.
    """

    def unreadable(problem: OSError) -> None:
        where = str(problem.filename or source)
        refuse(NotTakenError(where, f"cannot be read: {problem.strerror}", "check its permissions"))

    try:
        status = source.stat()
        avoided = None if avoid is None else avoid.stat()
    except OSError as problem:
        unreadable(problem)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield source, status.st_size
        return
    if avoided is not None and os.path.samestat(status, avoided):
        refuse(NotTakenError(str(source), "is the archive itself"))
        return
    for folder, folders, names in os.walk(source, onerror=unreadable):
        folders[:] = [
            name for name in sorted(folders) if _may_be_entered(Path(folder, name), avoided, refuse)
        ]
        for name in sorted(names):
            path = Path(folder, name)
            try:
                yield path, path.stat().st_size
            except OSError as problem:
                unreadable(problem)


def _may_be_entered(folder: Path, avoided: os.stat_result | None, refuse: Refuse) -> bool:
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if stat.S_ISLNK(status.st_mode):
            refuse(NotTakenError(str(folder), "is a link to a folder, not followed", "name it to import it"))
            return False
        if avoided is not None and os.path.samestat(status, avoided):
            refuse(NotTakenError(str(folder), "is the archive itself"))
            return False
    return True


@contextlib.contextmanager
def opened(file: Path) -> Iterator[int]:
    """A descriptor of a regular file, for reading.

    Raises:
        NotTakenError: it is something else; nothing was opened then.
        OSError: it cannot be opened.
    """
    _require_regular(file, file.stat())
    # It may have been replaced since: not waiting makes a FIFO harmless.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(file, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _require_regular(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotTakenError(str(file), "is no regular file")


def copy_still(file: Path, descriptor: int, target: Path) -> bytes:
    """Copy a whole open file durably to a new name, with its modification time; its SHA-256.

    Raises:
        NotTakenError: it changed meanwhile.
        OSError: it cannot be read, or the copy cannot be written.
    """
    before = os.fstat(descriptor)
    digest = copy_bytes(descriptor, target)
    os.utime(target, ns=(before.st_mtime_ns, before.st_mtime_ns))
    _sync(target)
    if _state(os.fstat(descriptor)) != _state(before) or target.stat().st_size != before.st_size:
        raise NotTakenError(str(file), "changed while it was imported", "import it again when it is still")
    return digest


def copy_bytes(descriptor: int, target: Path) -> bytes:
    """Copy a whole file to a new name, sharing its blocks where the file system can; its SHA-256."""
    digest = hashlib.sha256()
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if clone(descriptor, out):
            return digest_of(out)
        for block in _blocks(descriptor):
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(out, view) :]
    finally:
        os.close(out)
    return digest.digest()


def digest_of(descriptor: int) -> bytes:
    """SHA-256 of a whole open file."""
    digest = hashlib.sha256()
    for block in _blocks(descriptor):
        digest.update(block)
    return digest.digest()


def _blocks(descriptor: int) -> Iterator[bytes]:
    at = 0
    while block := os.pread(descriptor, _COPY_BYTES, at):
        yield block
        at += len(block)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
