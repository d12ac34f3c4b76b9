"""A listening application entity: accepts associations and serves C-ECHO and C-STORE.

Owns associations from the connection to their end, and how many there may be.  Who is admitted, where a data
set goes and what is answered is up to the `Service`.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import _config, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import (
    NonPatientObjectPresentationContexts,
    PresentationContext,
    build_context,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.status import code_to_status
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from dicomfs.dicom.meta_group import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomfs.errors import UsageError
from dicomfs.network.messages import Messages
from dicomfs.network.model import NodeSettings, Peer, Service, Session, Store, StoreRequest
from dicomfs.network.upper_layer import Connection, Reactor

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import DimseServiceType

logger = logging.getLogger(__name__)

MAX_PDU_BYTES = 256 << 10
"""Announced to peers: fragments this long make the cost of each one small."""
_SPARE_CONNECTIONS = 16
"""Connections beyond the associations that are served: they get a proper rejection."""
_POLL_SECONDS = 0.005
_ACCEPT_SECONDS = 0.1
_END_SECONDS = 5.0
_TOLD_SECONDS = 10.0
"""A flood of connections is one line in so many seconds, not one each."""
_COMMENT_CHARACTERS = 64
_NON_PATIENT = frozenset(context.abstract_syntax for context in NonPatientObjectPresentationContexts)
"""Stored like all others (PS3.4 GG), but not among what pynetdicom takes without being told."""


class Node:
    """A listening application entity."""

    def __init__(self, settings: NodeSettings, service: Service) -> None:
        """Bind; nothing is served before `start`.

        Raises:
            UsageError: the AE title is none (PS3.5 6.2, AE), or the address cannot be listened on.
        """
        # These are pynetdicom's own switches, for the whole process.
        _config.LOG_HANDLER_LEVEL = "none"
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        # Its lines repeat what we log, and tell what peers sent in full.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        try:
            entity = ApplicationEntity(settings.ae_title)
        except ValueError as problem:
            raise UsageError(f"AE title {settings.ae_title!r}: {_reason(problem)}") from problem
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = MAX_PDU_BYTES
        entity.network_timeout = settings.timeout_seconds
        entity.acse_timeout = settings.timeout_seconds
        entity.require_called_aet = settings.require_called
        # `Service.admit` decides; pynetdicom's own count takes in connections that never asked for anything.
        entity.maximum_associations = 1 << 20
        entity.add_supported_context(Verification)
        try:
            self._server = _Server(entity, settings, service)
        except (OSError, OverflowError, ValueError) as problem:
            where = f"{settings.address} port {settings.port}"
            raise UsageError(f"cannot listen on {where}: {_reason(problem)}") from problem
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_ACCEPT_SECONDS,), name="scp", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread.start()

    def stop(self, patience_seconds: float) -> None:
        """Listen no more, let running stores end, then abort what is left of the associations."""
        self._server.shutdown()
        self._thread.join()
        deadline = time.monotonic() + patience_seconds
        waiting = self._server.associations()
        with ThreadPoolExecutor(max(1, len(waiting)), "scp-stop") as pool:
            list(pool.map(lambda association: association.end(deadline), waiting))


class _Server(AssociationServer):
    """Accepts connections up to a bound and makes each one an association of ours."""

    request_queue_size = 64

    def __init__(self, entity: ApplicationEntity, settings: NodeSettings, service: Service) -> None:
        self.service, self.timeout_seconds = service, settings.timeout_seconds
        self._most = settings.max_associations + _SPARE_CONNECTIONS
        self._told = -_TOLD_SECONDS
        self._open: set[_Association] = set()
        self._guard = threading.Lock()
        super().__init__(
            entity,
            (settings.address, settings.port),
            settings.ae_title,
            entity.supported_contexts,
            request_handler=_Handler,
        )

    def associations(self) -> list[_Association]:
        """Those that have not ended."""
        with self._guard:
            return list(self._open)

    def verify_request(self, _request: object, client_address: tuple[object, ...]) -> bool:
        """Refuse connections, not only associations, beyond a bound: each one costs two threads."""
        with self._guard:
            full = len(self._open) >= self._most
        if full and time.monotonic() - self._told > _TOLD_SECONDS:
            self._told = time.monotonic()
            logger.warning("connections refused: too many", extra={"address": str(client_address[0])})
        return not full

    def handle_error(self, _request: object, client_address: tuple[object, ...]) -> None:
        """Log what kept a connection from being served; the server closes it."""
        # socketserver calls it from its exception handler.
        logger.exception("connection failed", extra={"address": str(client_address[0])})  # noqa: LOG004

    def service_actions(self) -> None:
        """Nothing: the garbage collector finds ended associations by itself."""

    def opened(self, association: _Association) -> None:
        """Count an association from its connection on."""
        with self._guard:
            self._open.add(association)

    def closed(self, association: _Association) -> None:
        """Count it no more."""
        with self._guard:
            self._open.discard(association)

    def shutdown(self) -> None:
        """End `serve_forever` and close the listening socket."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()


class _Handler(RequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Start the association's threads; it ends by itself."""
        server = cast("_Server", self.server)
        association = _Association(self.ae, server, cast("socket.socket", self.request), self.client_address)
        server.opened(association)
        try:
            association.start()
        except RuntimeError:
            # There are no more threads.
            server.closed(association)
            raise


class _Association(Association):
    """One association, from the connection to its end."""

    def __init__(
        self,
        entity: ApplicationEntity,
        server: _Server,
        connection: socket.socket,
        address: tuple[Any, ...],
    ) -> None:
        super().__init__(entity, MODE_ACCEPTOR)
        self._server: _Server = server
        self.peer = Peer("", "", str(address[0]))
        self._session: Session | None = None
        self.reactor = self.dul = Reactor(self, self.peer.address)
        self.messages = self.dimse = Messages(self, self.peer.address, self._begin)
        # Setting them sets the timers of the reactor, too.
        self.acse_timeout, self.network_timeout = entity.acse_timeout, entity.network_timeout
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = Connection(self, self.reactor, connection, server.timeout_seconds)
        self.set_socket(self.connection)
        self.acceptor.maximum_length = entity.maximum_pdu_size
        self.acceptor.ae_title = server.ae_title
        self.acceptor.address_info = server.address_info
        self.acceptor.implementation_class_uid = entity.implementation_class_uid
        self.acceptor.implementation_version_name = entity.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(address)
        self.bind(evt.EVT_REQUESTED, self._requested)
        self.bind(evt.EVT_C_STORE, self._received)

    def end(self, deadline: float) -> None:
        """Let a running store end until `deadline` (of the monotonic clock), then abort."""
        while self.messages.busy and self.is_alive() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self.is_established:
            self.abort()
        else:
            self.connection.cut()
        self.join(_END_SECONDS)

    def run_reactor(self) -> None:
        """Serve until the association ends, whichever way."""
        try:
            super().run_reactor()
        except Exception as problem:
            # What a hostile peer can make pynetdicom raise is not known; only its own association may end.
            told = {"address": self.peer.address, "reason": type(problem).__name__}
            logger.warning("association failed", extra=told)
            logger.debug("association failed", exc_info=True)
        finally:
            self.connection.cut()
            self.reactor.stop()
            self.messages.close()
            self._server.closed(self)
            if self._session is not None:
                self._session.ended(self._how())

    def _how(self) -> str:
        if self.is_released:
            return "released"
        if self.is_rejected:
            return "rejected"
        return "aborted" if self._sent_abort else "aborted by peer"

    def _requested(self, _event: evt.Event) -> None:
        """Ask the service; who is not admitted is rejected: transient, local limit exceeded (PS3.8 9.3.4)."""
        request = self.requestor.primitive
        assert request is not None
        titles = (request.calling_ae_title, request.called_ae_title)
        calling, called = (str(title or "").strip() for title in titles)
        self.peer = Peer(calling, called, self.peer.address)
        self.acceptor.supported_contexts = _supported(request.presentation_context_definition_list)
        self._session = self._server.service.opened(self.peer)
        if not self._session.admitted:
            self.acse.send_reject(0x02, 0x03, 0x02)
            self.kill()

    def _begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Store:
        assert self._session is not None
        return self._session.begin(
            StoreRequest(self.peer, sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        )

    def _received(self, _event: evt.Event) -> object:
        """Answer a C-STORE whose data set is complete."""
        answer = self.messages.finish()
        status = code_to_status(answer.status)
        if answer.comment:
            status.ErrorComment = answer.comment[:_COMMENT_CHARACTERS]
        return status

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        if not msg.is_valid_request:
            self.abort()
            return
        super()._serve_request(msg, context_id)
        self.messages.served()


def _supported(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """What is served besides the SOP classes that pynetdicom takes for storage: those are always accepted."""
    transfer_syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        abstract = str(context.abstract_syntax)
        if abstract in _NON_PATIENT:
            transfer_syntaxes.setdefault(abstract, []).extend(context.transfer_syntax)
    found = [build_context(abstract, list(dict.fromkeys(s))) for abstract, s in transfer_syntaxes.items()]
    return [build_context(Verification), *found]


def _reason(problem: Exception) -> str:
    return str(getattr(problem, "strerror", None) or problem)
