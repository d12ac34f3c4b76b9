"""Received files into an archive: written into the spool, accepted in groups.

Owns what a received file is until it is accepted; how is `accept`'s and `group_acceptance`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicomfs.accept import Candidate, Outcome
from dicomfs.archive import Archive
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import NotTakenError
from dicomfs.group_acceptance import GroupAcceptance
from dicomfs.network.model import StoreRequest
from dicomfs.packing.spooled import file_bytes
from dicomfs.store_sink import Incoming, PartFile


class ArchiveSink:
    """Accepts received files into an open archive."""

    def __init__(self, archive: Archive) -> None:
        self.folder = archive.paths.spool
        self._desk = archive.spool.desk()
        self._group = GroupAcceptance(archive.acceptor().accept)

    def begin(self, request: StoreRequest) -> Incoming:
        """A file on the spool's desk."""
        return _SpoolFile(PartFile(self._desk.new_path(), request), self._group)

    def close(self) -> None:
        """Remove what is left of temporary files."""
        self._desk.close()


@dataclass(frozen=True, slots=True)
class _SpoolFile:
    """One file of an `ArchiveSink`."""

    part: PartFile
    group: GroupAcceptance

    def write(self, data: memoryview) -> None:
        self.part.write(data)

    def commit(self) -> None:
        mtime_ns = self.part.sync()
        self.part.close()
        with file_bytes(self.part.path) as data:
            described = attributes(scan(data))
        if not described.sop_instance_uid:
            raise NotTakenError("the data set", "has no SOP Instance UID")
        candidate = Candidate(self.part.path, self.part.size, mtime_ns, self.part.sha256, described)
        if self.group.accept(candidate).outcome is Outcome.ALREADY:
            self.part.path.unlink(missing_ok=True)

    def discard(self) -> None:
        self.part.discard()
