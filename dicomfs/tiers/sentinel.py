"""The sentinel of a folder tier: a small file that proves that the folder is the tier and whose it is.

Where a network folder is not mounted there is an empty folder, which must not be taken for an empty tier, nor
written to.  The sentinel lies in the tier's folder, so it is gone when the mount is.

Specified in docs/format.md, "The sentinel of a folder tier".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dicomfs.errors import TierError, UsageError
from dicomfs.paths import write_durably

SENTINEL = ".dicomfs-tier"
VERSION = 1
"""Of the sentinel and of how objects lie below the folder; a newer one is refused."""
_MOST_BYTES = 4096


def attach_folder(name: str, folder: Path, archive_id: bytes) -> None:
    """Make the sentinel of an archive in a new or empty folder; nothing to do when it is there.

    The folder's parent must be there.  What a crash in between leaves is attached by the next try.

    Raises:
        UsageError: the folder belongs to another archive, holds something else, or can't be made.
        TierError: it can't be read.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = read_sentinel(name, folder)
        if owner == archive_id:
            return
        if owner is not None:
            raise UsageError(f"{folder} is the tier of another archive ({owner.hex()}): name another folder")
        if any(entry.name != f"{SENTINEL}.part" for entry in folder.iterdir()):
            raise UsageError(f"{folder} is not empty and no tier: name a new or empty folder")
        document = {"format": "dicomfs tier", "version": VERSION, "archive": archive_id.hex()}
        write_durably(folder / SENTINEL, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made a tier: {error.strerror}") from error


def read_sentinel(name: str, folder: Path) -> bytes | None:
    """Id of the archive whose tier the folder is; None where there is no sentinel.

    Raises TierError for a sentinel that can't be understood, OSError when it can't be read.
    """
    try:
        with (folder / SENTINEL).open("rb") as file:
            text = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        document = json.loads(text)
        if document["format"] != "dicomfs tier":
            raise ValueError
        version, archive = int(document["version"]), bytes.fromhex(document["archive"])
    except (ValueError, KeyError, TypeError) as error:
        raise TierError(name, SENTINEL, "damaged: restore it from a backup of the tier") from error
    if version > VERSION:
        raise TierError(name, SENTINEL, f"version {version} is newer than {VERSION}: upgrade dicomfs")
    return archive


class SentinelCheck:
    """Looks for the sentinel of one archive; reads it again only when the file has changed."""

    def __init__(self, name: str, archive_id: bytes) -> None:
        self._name, self._archive_id = name, archive_id
        self._seen: tuple[int, int, int] | None = None

    def require(self, folder: Path) -> None:
        """Raise TierError unless ``folder`` holds it; OSError when it can't be looked at."""
        try:
            found = os.stat(folder / SENTINEL)  # noqa: PTH116  as fast as can be: before each operation
        except FileNotFoundError as error:
            raise TierError(
                self._name, "", "the folder is there but not the tier: is the network folder mounted?"
            ) from error
        signature = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if signature == self._seen:
            return
        if read_sentinel(self._name, folder) != self._archive_id:
            raise TierError(self._name, "", "the folder is the tier of another archive: correct its URL")
        self._seen = signature
