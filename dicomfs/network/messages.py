"""DIMSE messages (PS3.7) of one association: commands are put together, data sets go on as they come.

Owns what a peer may send once its association stands: C-ECHO and C-STORE requests, nothing else.  A data set
goes to its `Store` fragment by fragment and is never decoded.  pynetdicom's own chunked reception writes into
the system's temporary folder with a meta group of its own, and a full disk there ends its reactor without an
answer to the peer.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from dicomfs.network.model import Answer, Store

if TYPE_CHECKING:
    from pynetdicom.dimse import _QueueItem

logger = logging.getLogger(__name__)

_MOST_COMMAND_BYTES = 64 << 10
_MOST_OUTSTANDING = 8
"""Requests received and not answered; one is what was negotiated (PS3.7 D.3.3.3)."""
_POLL_SECONDS = 0.005
_COMMAND, _LAST = 1, 2
"""Bits of the message control header (PS3.8 E.2)."""


Begin = Callable[[str, str, str], Store]
"""Begins a store: SOP Class UID, SOP Instance UID, Transfer Syntax UID."""


class _ProtocolError(Exception):
    """The peer sent what it must not send here."""


@dataclass(frozen=True, slots=True)
class _Receiving:
    """A store whose data set is on its way."""

    context_id: int
    request: C_STORE
    store: Store


class Messages(DIMSEServiceProvider):
    """Puts messages together; the data set of a store goes to the service as it comes."""

    def __init__(self, association: Association, address: str, begin: Begin) -> None:
        super().__init__(association)
        self._association, self._address, self._begin_store = association, address, begin
        self._command = bytearray()
        self._receiving: _Receiving | None = None
        self._received: deque[Store] = deque()
        self._serving = False

    @property
    def busy(self) -> bool:
        """Whether a store has begun and is not answered."""
        return self._receiving is not None or bool(self._received) or self._serving

    def get_msg(self, block: bool = False) -> _QueueItem:  # noqa: ARG002  pynetdicom's signature
        """The next message, waited for a moment: what pynetdicom looks at next can wait as long."""
        try:
            return self.msg_queue.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one PDU; what must not come here ends the association."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._fragment(context_id, value)
        except _ProtocolError as problem:
            logger.warning("protocol error", extra={"address": self._address, "reason": str(problem)})
            self._abandon_receiving()
            # An invalid PDU, to the state machine (PS3.8 9.2.1).
            self.dul.event_queue.put("Evt19")

    def finish(self) -> Answer:
        """Finish the store whose turn it is."""
        self._serving = True
        return self._received.popleft().finish()

    def served(self) -> None:
        """The response is on its way."""
        self._serving = False

    def close(self) -> None:
        """Abandon what did not come to its end; the reactor has ended."""
        self._abandon_receiving()
        while self._received:
            self._received.popleft().abandon()

    def _abandon_receiving(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.store.abandon()

    def _fragment(self, context_id: int, value: bytes) -> None:
        if not value:
            raise _ProtocolError("a fragment without header")
        content, receiving = memoryview(value)[1:], self._receiving
        if value[0] & _COMMAND:
            self._command += content
            if receiving is not None or len(self._command) > _MOST_COMMAND_BYTES:
                raise _ProtocolError("a command within a data set, or a long one")
            if value[0] & _LAST:
                command = bytes(self._command)
                self._command.clear()
                self._request(context_id, command)
        elif receiving is None or receiving.context_id != context_id:
            raise _ProtocolError("a data set without its command")
        else:
            receiving.store.write(content)
            if value[0] & _LAST:
                self._received.append(receiving.store)
                self._receiving = None
                self.msg_queue.put((context_id, receiving.request))

    def _request(self, context_id: int, command: bytes) -> None:
        if self.msg_queue.qsize() >= _MOST_OUTSTANDING:
            raise _ProtocolError("too many requests at once")
        message = DIMSEMessage()
        whole = P_DATA()
        whole.presentation_data_value_list.append((context_id, bytes([_COMMAND | _LAST]) + command))
        try:
            alone = message.decode_msg(whole)
            request: Any = message.message_to_primitive()
        except Exception as problem:
            # pydicom and pynetdicom raise what they like on damaged command sets.
            raise _ProtocolError("an unreadable command set") from problem
        if alone and isinstance(message, C_ECHO_RQ):
            self.msg_queue.put((context_id, request))
        elif not alone and isinstance(message, C_STORE_RQ):
            self._begin(context_id, request)
        else:
            raise _ProtocolError("a request for what is not served, or a store without data set")

    def _begin(self, context_id: int, request: C_STORE) -> None:
        accepted = {context.context_id: context for context in self._association.accepted_contexts}
        context = accepted.get(context_id)
        if context is None or not request.is_valid_request:
            raise _ProtocolError("a store that is incomplete, or in a context that was not accepted")
        sop_class, sop_instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        store = self._begin_store(sop_class, sop_instance, str(context.transfer_syntax[0]))
        self._receiving = _Receiving(context_id, request, store)
