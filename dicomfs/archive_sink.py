"""Received files into an archive: written into the spool, accepted in groups.

Owns that stores which end while another group is being accepted become the next group, and so share its
syncs.  What acceptance is and what it promises is `accept`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dicomfs.accept import Acceptor, Candidate, Outcome
from dicomfs.archive import Archive
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import DicomfsError, NotTakenError
from dicomfs.network.model import StoreRequest
from dicomfs.packing.spooled import file_bytes
from dicomfs.store_sink import Incoming, PartFile


class ArchiveSink:
    """Accepts received files into an open archive."""

    def __init__(self, archive: Archive) -> None:
        self.folder = archive.paths.spool
        self._desk = archive.spool.desk()
        self._guard = threading.Lock()
        self._group = GroupAcceptance(archive.acceptor())

    def begin(self, request: StoreRequest) -> Incoming:
        """A file on the spool's desk."""
        with self._guard:
            path = self._desk.new_path()
        return _SpoolFile(PartFile(path, request), self._group)

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
        if self.group.accept(candidate) is Outcome.ALREADY:
            self.part.path.unlink(missing_ok=True)

    def discard(self) -> None:
        self.part.discard()


class GroupAcceptance:
    """Accepts one candidate a call, those of many threads together."""

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Ticket] = []

    def accept(self, candidate: Candidate) -> Outcome:
        """Accept; durable when it returns.

        Raises:
            OSError, DicomfsError: as `Acceptor.accept`; the candidate was not accepted.
        """
        ticket = _Ticket(candidate)
        with self._guard:
            self._waiting.append(ticket)
        with self._turn:
            if ticket.outcome is None and ticket.problem is None:
                with self._guard:
                    group, self._waiting = self._waiting, []
                self._run(group)
        if ticket.problem is not None:
            raise ticket.problem
        assert ticket.outcome is not None
        return ticket.outcome

    def waiting(self) -> list[Candidate]:
        """Those whose turn has not come."""
        with self._guard:
            return [ticket.candidate for ticket in self._waiting]

    def _run(self, group: Sequence[_Ticket]) -> None:
        try:
            outcomes = self._acceptor.accept([ticket.candidate for ticket in group])
        except (OSError, DicomfsError) as problem:
            if len(group) == 1:
                group[0].problem = problem
                return
            # One of them may be the reason: that must not be held against the others.
            for ticket in group:
                self._run([ticket])
            return
        for ticket, outcome in zip(group, outcomes, strict=True):
            ticket.outcome = outcome


@dataclass(slots=True)
class _Ticket:
    """A candidate in the queue, later what became of it."""

    candidate: Candidate
    outcome: Outcome | None = None
    problem: OSError | DicomfsError | None = None
