"""Takes what clients wrote under ``incoming/`` into the archive: copies it, judges it, has it accepted.

Owns which files are taken when.  The spool gets bytes of its own (shared blocks where the file system can),
so that a client may go on writing its file whenever it likes: docs/adr/0012-copy-into-the-spool.md.
"""

from __future__ import annotations

import enum
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dicomfs.accept import Acceptor, Candidate
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import NotTakenError
from dicomfs.group_acceptance import GroupAcceptance
from dicomfs.model import InstanceId
from dicomfs.packing.spooled import file_bytes
from dicomfs.sources import copy_still
from dicomfs.spool import Desk, Spool

PEEK_BYTES = 1 << 20
"""How much of a file without the Part 10 mark is looked at: attributes come first in a data set."""
_MARK_AT, _MARK = 128, b"DICM"


class Verdict(enum.Enum):
    """What became of a file."""

    ACCEPTED = "accepted"
    PART = "part"
    """It announces more than it holds, or changes: to be looked at again when it is quiet.

    With an instance it was accepted provisionally.
    """
    OTHER = "other"
    """No instance, as far as can be told."""


class Taken(NamedTuple):
    """A verdict, and the instance for one that was accepted, be it provisionally."""

    verdict: Verdict
    instance: InstanceId | None = None


class Intake:
    """Takes files into the archive.  Any thread may call it; what arrives together is accepted together."""

    def __init__(
        self,
        spool: Spool,
        acceptor: Acceptor,
        withdraw: Callable[[InstanceId], bool],
        reserve_bytes: int,
    ) -> None:
        """``withdraw`` is that of a `Withdrawer`."""
        self._spool, self._reserve_bytes = spool, reserve_bytes
        self.withdraw = withdraw
        self._desk: Desk | None = None
        self._opening = threading.Lock()
        self._group = GroupAcceptance(acceptor.accept)

    def take(self, descriptor: int, *, quiet: bool) -> Taken:
        """Take an open file: a Part 10 file now, anything else with a SOP Instance UID once it is quiet.

        One that is cut short is accepted provisionally until it is quiet.  Durable when it names an instance.

        Raises:
            OSError: it cannot be read or copied; ENOSPC below the space that the archive keeps free.
            CatalogFull, DicomfsError: it cannot be accepted.
        """
        size = os.fstat(descriptor).st_size
        marked = os.pread(descriptor, len(_MARK), _MARK_AT) == _MARK
        if size == 0 or not (marked or (quiet and _looks_like_instance(descriptor, size))):
            return Taken(Verdict.OTHER)
        self._require_space(size)
        temporary = self._own_desk().new_path()
        try:
            return self._take_copy(descriptor, temporary, quiet=quiet)
        except NotTakenError:
            return Taken(Verdict.PART)
        finally:
            temporary.unlink(missing_ok=True)

    def _take_copy(self, descriptor: int, temporary: Path, *, quiet: bool) -> Taken:
        digest = copy_still(temporary, descriptor, temporary)
        with file_bytes(temporary) as data:
            found = scan(data)
            size = len(data)
        described = attributes(found)
        part = not quiet and not found.complete
        if not described.sop_instance_uid:
            return Taken(Verdict.PART if part else Verdict.OTHER)
        mtime_ns = temporary.stat().st_mtime_ns
        candidate = Candidate(temporary, size, mtime_ns, digest, described, provisional=part)
        _, instance = self._group.accept(candidate)
        return Taken(Verdict.PART if part else Verdict.ACCEPTED, instance)

    def _require_space(self, size: int) -> None:
        if shutil.disk_usage(self._spool.folder).free < size + self._reserve_bytes:
            raise OSError(errno.ENOSPC, "archive.minimum_free_bytes")

    def _own_desk(self) -> Desk:
        """A place to copy to, made when it is needed: a full disk can still be mounted."""
        with self._opening:
            if self._desk is None:
                self._desk = self._spool.desk()
            return self._desk

    def close(self) -> None:
        """Remove what was being copied."""
        if self._desk is not None:
            self._desk.close()


def _looks_like_instance(descriptor: int, size: int) -> bool:
    found = scan(os.pread(descriptor, PEEK_BYTES, 0))
    if not found.is_dicom:
        return False
    return bool(attributes(found).sop_instance_uid) or (size > PEEK_BYTES and not found.note)
