"""Where things lie in an archive folder, and the small document that names the archive.

Owns the folder layout (docs/format.md, "The archive folder") and ``archive.json``.  Knows nothing of what
the folders hold.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomfs.errors import DamagedError, UnsupportedVersion, UsageError

ARCHIVE_VERSION = 1
"""Version of the archive folder's layout; a newer one is refused."""


@dataclass(frozen=True, slots=True)
class ArchivePaths:
    """The folders and files of one archive; all below ``root``, which only its owner may enter."""

    root: Path

    @property
    def identity(self) -> Path:
        """The document that names the archive."""
        return self.root / "archive.json"

    @property
    def settings(self) -> Path:
        """The administrator's settings."""
        return self.root / "dicomfs.toml"

    @property
    def index(self) -> Path:
        """The LMDB environments."""
        return self.root / "index"

    @property
    def frame_index(self) -> Path:
        """Where frames that are stored are looked up; may be deleted."""
        return self.index / "frames"

    @property
    def spool(self) -> Path:
        """Accepted bytes that are not packed yet."""
        return self.root / "spool"

    @property
    def staging(self) -> Path:
        """Packs that are being written; nothing in it is needed after a crash."""
        return self.root / "staging"

    @property
    def fetched(self) -> Path:
        """What is fetched from other tiers at the moment; nothing in it is needed after a crash."""
        return self.root / "fetched"

    @property
    def recoding(self) -> Path:
        """Packs that are being coded anew for another tier; nothing in it is needed after a crash."""
        return self.root / "recoding"

    @property
    def recoding_lock(self) -> Path:
        """Held by whoever does that."""
        return self.run / "recoding.lock"

    @property
    def holder(self) -> Path:
        """Tells this folder from other copies of the archive, see `dicomfs.ownership`."""
        return self.root / "holder"

    @property
    def placing_lock(self) -> Path:
        """Held while a copy on a tier is recorded or removed."""
        return self.run / "placing.lock"

    @property
    def rules_lock(self) -> Path:
        """Held by whoever applies the rules."""
        return self.run / "rules.lock"

    @property
    def run(self) -> Path:
        """Locks and logs of running processes."""
        return self.root / "run"

    @property
    def accept_lock(self) -> Path:
        """Held by whoever gives numbers and names, or changes the spool."""
        return self.run / "accept.lock"

    @property
    def accept_mark(self) -> Path:
        """There while an acceptance moves files into the spool; left behind by one that died."""
        return self.run / "accepting"

    @property
    def decision_mark(self) -> Path:
        """There while a decision is journaled and comes into effect; left behind by who died then."""
        return self.run / "deciding"

    @property
    def pack_lock(self) -> Path:
        """Held by whoever packs, or replaces the index."""
        return self.run / "pack.lock"

    @property
    def local_tier(self) -> Path:
        """The local tier, unless the settings name another folder."""
        return self.root / "local"

    @property
    def incoming(self) -> Path:
        """What lies beneath the writable tree of the mount."""
        return self.root / "incoming"

    @property
    def stubs(self) -> Path:
        """What is kept about stubs beneath ``incoming/``: key, sentinel, the list of those to be made."""
        return self.root / "stubs"

    @property
    def kept_others(self) -> Path:
        """Files without a SOP Instance UID that ``import --keep-others`` keeps, as they were."""
        return self.incoming / "imported"

    def make(self) -> None:
        """Make the folders of a new archive, each for its owner only.

        Raises:
            UsageError: the folder is not empty or cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.root.iterdir()):
                raise UsageError(f"{self.root} is not empty: name a new folder for the archive")
            self.root.chmod(0o700)
            for folder in (self.index, self.spool, self.staging, self.run, self.local_tier):
                folder.mkdir(mode=0o700)
        except OSError as problem:
            raise UsageError(f"{self.root}: cannot make the archive: {problem.strerror}") from problem


def write_identity(paths: ArchivePaths, archive_id: bytes) -> None:
    """Write ``archive.json`` durably."""
    document = {"format": "dicomfs archive", "version": ARCHIVE_VERSION, "id": archive_id.hex()}
    write_durably(paths.identity, json.dumps(document, indent=2) + "\n")


def write_durably(path: Path, text: str) -> None:
    """Write a small document as a whole: after a crash it is there, or what was there before."""
    temporary = path.with_suffix(".part")
    with create_private(temporary) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def create_private(path: Path) -> BinaryIO:
    """Open a new or emptied file for writing that only its owner may read, whatever the umask."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def new_archive_id() -> bytes:
    """A random identity, 16 bytes."""
    return secrets.token_bytes(16)


def read_identity(paths: ArchivePaths) -> bytes:
    """The archive's identity, 16 bytes.

    Raises:
        UsageError: there is no archive, or it may not be read.
        UnsupportedVersion: it was made by a newer version.
        DamagedError: the document is damaged.
    """
    try:
        text = paths.identity.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{paths.root} is no archive: make one with `dicomfs -a {paths.root} init`"
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{paths.identity}: cannot be read: {problem}") from problem
    try:
        document = json.loads(text)
        version = int(document["version"])
        archive_id = bytes.fromhex(document["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(str(paths.identity), "is damaged; run `dicomfs recover`") from None
    if version > ARCHIVE_VERSION:
        raise UnsupportedVersion(str(paths.identity), version, ARCHIVE_VERSION)
    if len(archive_id) != 16:
        raise DamagedError(str(paths.identity), "is damaged; run `dicomfs recover`")
    return archive_id


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
