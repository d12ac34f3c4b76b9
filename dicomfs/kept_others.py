"""Files that carry no SOP Instance UID, kept as they were under ``incoming/imported/``.

Owns where such a file lies: at its path below the imported folder, with ``.2``, ``.3`` … where that name
holds something else.  The same file again changes nothing.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from dicomfs import marks
from dicomfs.paths import sync_folder
from dicomfs.sources import copy_still, digest_of, opened


def keep(file: Path, relative: Path, folder: Path, temporary: Path) -> None:
    """Keep a file below ``folder``, durably; ``temporary`` is a free name on the same file system.

    Raises:
        NotTakenError: it is no regular file any more, or changed while it was copied.
        OSError: it cannot be read or written.
    """
    with opened(file) as descriptor:
        size = os.fstat(descriptor).st_size
        parent = folder
        _make(parent)
        for part in relative.parts[:-1]:
            parent = next(
                path for path in _names(parent / part) if path.is_dir() or not os.path.lexists(path)
            )
            _make(parent)
        digest = digest_of(descriptor)
        for target in _names(parent / relative.name):
            if not os.path.lexists(target):
                break
            if _holds(target, size, digest):
                return
        try:
            copy_still(file, descriptor, temporary)
            marks.set_written(temporary)
            # A link fails where another process took the name meanwhile; renaming would replace its file.
            os.link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(parent)


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}.{number}")


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        _make(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def _holds(target: Path, size: int, digest: bytes) -> bool:
    if not target.is_file() or target.stat().st_size != size:
        return False
    with opened(target) as descriptor:
        return digest_of(descriptor) == digest
