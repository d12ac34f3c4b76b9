"""The Upper Layer (PS3.8) of one association: its connection and the thread that reads and writes it.

Owns the bounds on what a peer may announce and how long it may take; the state machine is pynetdicom's.
pynetdicom believes any length, waits for ever for the rest of a PDU, and looks a thousand times a second
whether there is something to do: here a PDU is bounded in bytes and in time, and the thread sleeps in
``poll``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, _PDUPrimitiveType

    Heard = A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT

logger = logging.getLogger(__name__)

REFUSED_PDU_BYTES = 1 << 20
"""A longer PDU of whatever type ends the connection; an association request with 128 contexts fits."""
_WAIT_SECONDS = 0.1
_IDLE_SECONDS = 0.005


class Reactor(DULServiceProvider):
    """The Upper Layer's thread; wakes up when the peer or we have something to say."""

    def __init__(self, association: Association, address: str) -> None:
        super().__init__(association)
        self._address = address
        self.daemon = True
        self._run_loop_delay = 0
        self._ended = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._guard = threading.Lock()

    def run_reactor(self) -> None:
        """Run until the connection is closed or nothing can be done with it."""
        try:
            super().run_reactor()
        except Exception as problem:
            # Peers must not fill the log: how it came about is for those who look for it.
            logger.warning(
                "reactor failed", extra={"address": self._address, "reason": type(problem).__name__}
            )
            logger.debug("reactor failed", exc_info=True)
        finally:
            self._ended = True
            # Ends the waiting of the association's thread, which has no other way to learn of it.
            self.to_user_queue.put(cast("Heard", None))

    def send_pdu(self, primitive: _PDUPrimitiveType) -> None:
        super().send_pdu(primitive)
        self.wake()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Heard | None:
        """As pynetdicom's, but a connection that was closed is not waited for."""
        if not wait:
            return super().receive_pdu()
        deadline = time.monotonic() + (timeout or 0)
        while True:
            primitive: Heard | None = cast("Heard | None", super().receive_pdu(True, _WAIT_SECONDS))
            if primitive is not None or self._ended or time.monotonic() > deadline:
                return primitive

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """End the thread, whatever its state."""
        self._kill_thread = True
        self.wake()
        if self.is_alive():
            self.join()
        with self._guard:
            if self._bell >= 0:
                os.close(self._bell)
            self._bell = -1

    def wake(self) -> None:
        """End `wait` now."""
        with self._guard:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def wait(self, connection: socket.socket, seconds: float) -> bool:
        """Whether there is something to read from `connection`; waits for it until `wake` is called."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(connection, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        if self._bell in ready:
            os.eventfd_read(self._bell)
        return bool(ready - {self._bell})


class Connection(AssociationSocket):
    """The transport connection, bounded in the length of a PDU and in the time that one takes."""

    def __init__(
        self, association: Association, reactor: Reactor, connection: socket.socket, seconds: float
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._reactor, self._seconds = reactor, seconds
        self._raw = connection

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits for it when there is nothing else to do."""
        if self.socket is None or not self._is_connected:
            # The association's thread ends the reactor in a moment.
            time.sleep(_IDLE_SECONDS)
            return False
        try:
            return self._reactor.wait(self.socket, _WAIT_SECONDS if self.event_queue.empty() else 0)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes, or fewer when the peer closes the connection.

        Raises:
            OSError: too many were announced, or they did not come in time.
        """
        if nr_bytes > REFUSED_PDU_BYTES:
            raise OSError(errno.EMSGSIZE, "the PDU is too long")
        data = bytearray(nr_bytes)
        deadline = time.monotonic() + self._seconds
        with memoryview(data) as view:
            got = 0
            while got < nr_bytes:
                self._raw.settimeout(max(deadline - time.monotonic(), 0.001))
                # Peers with Nagle's algorithm wait for each acknowledgement; the kernel forgets this soon.
                self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                count = self._raw.recv_into(view[got:])
                if not count:
                    break
                got += count
        return data[:got] if got < nr_bytes else data

    def send(self, bytestream: bytes) -> None:
        with contextlib.suppress(OSError):
            # A closed connection is noticed by sending.
            self._raw.settimeout(self._seconds)
        super().send(bytestream)

    def cut(self) -> None:
        """End the connection under whoever waits for it."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
