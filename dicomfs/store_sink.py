"""Where received files go: the protocol, and plain files below a folder.

A file is written under a temporary name in a hidden folder of this process, synced, given its name with a
hard link (which never replaces another file), and its folder synced.  Names are
``<calling AE>/<date>/<SOP Instance UID>.dcm``, escaped; other bytes under the same UID get a digest behind
the UID, the same bytes are there already.  Knows nothing of the network; acceptance into an archive is
`archive_sink`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicomfs.dicom.meta_group import part10_start
from dicomfs.dicom.naming import component
from dicomfs.errors import UsageError
from dicomfs.network.model import StoreRequest
from dicomfs.paths import sync_folder
from dicomfs.sources import digest_of
from dicomfs.spool import Desk, open_desk

_HIDDEN = ".dicomfs-scp"
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_DIGEST_DIGITS = (0, 8, 64)
"""Hex digits of the SHA-256 behind the UID, tried in this order."""


class Incoming(Protocol):
    """One file on its way in.  Each method may raise OSError or DicomfsError; then only `discard` follows."""

    def write(self, data: memoryview) -> None:
        """Append bytes of the data set."""

    def commit(self) -> None:
        """Keep the file; when this returns it survives a power cut."""

    def discard(self) -> None:
        """Remove what was written."""


class Sink(Protocol):
    """Where received files go; safe for many threads."""

    folder: Path
    """Lies on the file system whose free space counts."""

    def begin(self, request: StoreRequest) -> Incoming:
        """A new file, its meta group written.  Raises OSError, DicomfsError."""

    def close(self) -> None:
        """Remove what is left of temporary files."""


class PartFile:
    """A file under a temporary name: meta group written, digest taken on the way."""

    def __init__(self, path: Path, request: StoreRequest, mode: int = 0o600) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self.size = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        start = part10_start(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            source_ae=request.peer.calling,
        )
        try:
            self.write(memoryview(start))
        except OSError:
            self.discard()
            raise

    @property
    def sha256(self) -> bytes:
        """Of what was written so far."""
        return self._digest.digest()

    def write(self, data: memoryview) -> None:
        """Append all of these bytes."""
        self._digest.update(data)
        self.size += len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]

    def sync(self) -> int:
        """Make the bytes durable; the modification time, nanoseconds since 1970."""
        os.fsync(self._descriptor)
        return os.fstat(self._descriptor).st_mtime_ns

    def close(self) -> None:
        """End writing.  Raises OSError where the file system refuses the file now."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def discard(self) -> None:
        """Close it and remove the temporary name, if it is there."""
        with contextlib.suppress(OSError):
            # What cannot be written is not wanted any more.
            self.close()
        self.path.unlink(missing_ok=True)


class FolderSink:
    """Plain files below a folder, which may be ``incoming/`` of a mount."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError when the folder is not there or cannot be written to."""
        self.folder = folder
        try:
            self._desk: Desk = open_desk(folder / _HIDDEN)
        except OSError as problem:
            raise UsageError(f"{folder}: cannot be written to: {problem.strerror}") from problem
        self._guard = threading.Lock()
        self._durable: set[Path] = set()

    def begin(self, request: StoreRequest) -> Incoming:
        """A file that will lie below the folder."""
        path = self._desk.new_path()
        sender, uid = component(request.peer.calling, "no-ae"), component(request.sop_instance_uid, "no-uid")
        place = self.folder / sender / time.strftime("%Y%m%d")
        return _FolderFile(self, PartFile(path, request, _FILE_MODE), place, uid)

    def make_folders(self, place: Path, *, anew: bool = False) -> None:
        """Make ``<AE>/<date>`` durably, once for all threads; ``anew`` when it went away since."""
        with self._guard:
            if place in self._durable and not anew:
                return
            for folder in (place.parent, place):
                folder.mkdir(_FOLDER_MODE, exist_ok=True)
                sync_folder(folder.parent)
            self._durable.add(place)

    def close(self) -> None:
        """Remove what is left of temporary files."""
        self._desk.close()


@dataclass(slots=True)
class _FolderFile:
    """One file of a `FolderSink`."""

    sink: FolderSink
    part: PartFile
    place: Path
    uid: str

    def write(self, data: memoryview) -> None:
        self.part.write(data)

    def commit(self) -> None:
        self.part.sync()
        self.sink.make_folders(self.place)
        try:
            name = self._claim()
        except FileNotFoundError:
            # Somebody removed the folder.
            self.sink.make_folders(self.place, anew=True)
            name = self._claim()
        try:
            # On a mount this is where the file is accepted, under the name that it keeps.
            self.part.close()
            self.part.path.unlink()
        except OSError:
            if name is not None:
                name.unlink(missing_ok=True)
            raise
        sync_folder(self.place)

    def discard(self) -> None:
        self.part.discard()

    def _claim(self) -> Path | None:
        """Give the file a name that nobody has; None when one holds the same bytes already."""
        for digits in _DIGEST_DIGITS:
            digest = f"-{self.part.sha256.hex()[:digits]}" if digits else ""
            name = self.place / f"{self.uid}{digest}.dcm"
            try:
                os.link(self.part.path, name)
            except FileExistsError:
                if self._same_bytes(name):
                    return None
                continue
            return name
        raise FileExistsError(f"{self.place}: {self.uid}: all names are taken")

    def _same_bytes(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_size != self.part.size or digest_of(descriptor) != self.part.sha256:
                return False
            # Whoever wrote it may not have synced it.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True
