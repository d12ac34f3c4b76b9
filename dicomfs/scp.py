"""The storage provider: what a peer is answered, and when there is no room for it.

Owns the statuses of C-STORE, the reserve of free space, the number of associations, and what is logged: one
line an association, one a failed store, without attributes of patients.  Where files go is the sink's, how
they come the network's.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator

from dicomfs.errors import CatalogFull, DicomfsError, NotTakenError, TierFull
from dicomfs.network.model import Answer, NodeSettings, Peer, Status, Store, StoreRequest
from dicomfs.network.node import Node
from dicomfs.store_sink import Incoming, Sink

logger = logging.getLogger(__name__)

_LOOK_BYTES = 16 << 20
"""Received bytes after which free space is looked at again."""
_FEW_INODES = 1024
_ROOM_SECONDS = 0.5
_SCARCE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG})


class StorageService:
    """Answers associations and stores on behalf of a sink; safe for many threads."""

    def __init__(self, sink: Sink, reserve_bytes: int, max_associations: int) -> None:
        self.sink = sink
        self._reserve_bytes, self._most = reserve_bytes, max_associations
        self._room = threading.Condition()
        self._served = 0

    def opened(self, peer: Peer) -> _Session:
        """An association; not admitted when there are too many, or when space is short."""
        session = _Session(self, peer)
        try:
            self.require_space()
        except OSError as problem:
            session.refusal = _said(problem)
            return session
        with self._room:
            # Who releases an association and asks for the next finds room, though the first is still ending.
            if self._room.wait_for(lambda: self._served < self._most, _ROOM_SECONDS):
                self._served += 1
            else:
                session.refusal = "too many associations"
        return session

    def closed(self) -> None:
        """An association that was admitted has ended."""
        with self._room:
            self._served -= 1
            self._room.notify()

    def require_space(self) -> None:
        """Raise OSError (ENOSPC) when the reserve is reached, or few inodes are left."""
        disk = os.statvfs(self.sink.folder)
        if disk.f_bavail * disk.f_frsize < self._reserve_bytes:
            raise OSError(errno.ENOSPC, f"less than {self._reserve_bytes} bytes are free")
        # Some file systems do not count inodes and say there are none.
        if disk.f_files > 0 and disk.f_favail < _FEW_INODES:
            raise OSError(errno.ENOSPC, f"less than {_FEW_INODES} inodes are free")


class _Session:
    """One association."""

    def __init__(self, service: StorageService, peer: Peer) -> None:
        self.service, self.peer = service, peer
        self.refusal = ""
        self.stored = self.failed = self.received = 0
        self._began = time.monotonic()

    @property
    def admitted(self) -> bool:
        return not self.refusal

    def begin(self, request: StoreRequest) -> Store:
        return _Store(self, request)

    def ended(self, how: str) -> None:
        if self.admitted:
            self.service.closed()
        peer = self.peer
        logger.log(
            logging.INFO if self.admitted and not self.failed else logging.WARNING,
            "association",
            extra={
                "calling": peer.calling,
                "called": peer.called,
                "address": peer.address,
                "end": how,
                **({} if self.admitted else {"reason": self.refusal}),
                "stored": self.stored,
                "failed": self.failed,
                "bytes": self.received,
                "seconds": round(time.monotonic() - self._began, 3),
            },
        )


class _Store:
    """One data set on its way to the sink: the first problem ends it, what follows is let pass."""

    def __init__(self, session: _Session, request: StoreRequest) -> None:
        self._session, self._request = session, request
        self._incoming: Incoming | None = None
        self._problem: OSError | DicomfsError | None = None
        self._looked = 0
        self._received = 0
        with self._noticed():
            session.service.require_space()
            self._incoming = session.service.sink.begin(request)

    def write(self, data: memoryview) -> None:
        self._received += len(data)
        if self._incoming is None:
            return
        with self._noticed():
            if self._received - self._looked >= _LOOK_BYTES:
                self._looked = self._received
                self._session.service.require_space()
            self._incoming.write(data)

    def finish(self) -> Answer:
        if self._incoming is not None:
            with self._noticed():
                self._incoming.commit()
        self._session.received += self._received
        if self._problem is None:
            self._session.stored += 1
            return Answer(Status.SUCCESS)
        answer = _answer(self._problem)
        self._failed(f"0x{answer.status:04X}", _said(self._problem))
        return answer

    def abandon(self) -> None:
        self._session.received += self._received
        self._discard()
        self._failed("none", "the association ended")

    @contextlib.contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DicomfsError) as problem:
            self._problem = problem
            # At once: it takes the space that others need.
            self._discard()

    def _discard(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            try:
                incoming.discard()
            except OSError as problem:
                logger.warning("temporary file left", extra={"reason": _said(problem)})

    def _failed(self, status: str, reason: str) -> None:
        self._session.failed += 1
        logger.warning(
            "store failed",
            extra={
                "calling": self._session.peer.calling,
                "instance": self._request.sop_instance_uid,
                "syntax": self._request.transfer_syntax_uid,
                "status": status,
                "reason": reason,
            },
        )


def _answer(problem: OSError | DicomfsError) -> Answer:
    if isinstance(problem, TierFull | CatalogFull) or getattr(problem, "errno", None) in _SCARCE:
        return Answer(Status.OUT_OF_RESOURCES, "no space left")
    if isinstance(problem, NotTakenError):
        return Answer(Status.CANNOT_UNDERSTAND, problem.reason)
    return Answer(Status.PROCESSING_FAILURE, "storing failed")


def _said(problem: OSError | DicomfsError) -> str:
    return problem.strerror or str(problem) if isinstance(problem, OSError) else str(problem)


@contextlib.contextmanager
def serving(
    sink: Sink, settings: NodeSettings, reserve_bytes: int, patience_seconds: float
) -> Iterator[Node]:
    """A node that stores into `sink`; at the end running stores may take `patience_seconds` to finish.

    Raises:
        UsageError: it cannot listen, or the AE title is none.
    """
    node = Node(settings, StorageService(sink, reserve_bytes, settings.max_associations))
    node.start()
    logger.info("listening", extra={"ae_title": settings.ae_title, "port": node.port})
    try:
        yield node
    finally:
        node.stop(patience_seconds)
        sink.close()
        logger.info("stopped")
