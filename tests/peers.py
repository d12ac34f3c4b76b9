"""A peer on the DICOM network made of bytes: it sends data sets as they are, and whatever else a test wants.

Written from PS3.7 and PS3.8 alone; shares no code with what it tests.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests import samples

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION = "1.2.840.10008.3.1.1.1"
SECONDS = 20.0

Context = tuple[str, Sequence[str]]
"""Abstract syntax and proposed transfer syntaxes."""


class Rejected(Exception):
    """The association was rejected: result, source, reason."""


class Aborted(Exception):
    """The association was aborted, or its connection closed."""


class Response(NamedTuple):
    """A response to a request."""

    status: int
    comment: str
    message_id: int


def data_set(part10: bytes) -> bytes:
    """What lies behind the meta group of a file that `samples` made."""
    (length,) = struct.unpack_from("<L", part10, 140)
    return part10[144 + length :]


def item(kind: int, content: bytes) -> bytes:
    """An item of an association request (PS3.8 9.3.2)."""
    return struct.pack(">BxH", kind, len(content)) + content


def request(contexts: Iterable[Context], called: bytes, calling: bytes, max_pdu: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ."""
    items = item(0x10, APPLICATION.encode())
    for number, (abstract, transfers) in enumerate(contexts):
        syntaxes = item(0x30, abstract.encode()) + b"".join(item(0x40, t.encode()) for t in transfers)
        items += item(0x20, struct.pack(">B3x", 2 * number + 1) + syntaxes)
    items += item(0x50, item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.3"))
    return pdu(1, struct.pack(">Hxx16s16s32x", 1, called.ljust(16), calling.ljust(16)) + items)


def pdu(kind: int, content: bytes) -> bytes:
    """A PDU of any type."""
    return struct.pack(">BxL", kind, len(content)) + content


def fragment(context: int, header: int, content: bytes) -> bytes:
    """A presentation data value: header 1 command, 2 last (PS3.8 E.2)."""
    return struct.pack(">LBB", len(content) + 2, context, header) + content


def command(elements: Iterable[tuple[int, str, samples.Value]]) -> bytes:
    """A command set with its group length (PS3.7 6.3.1)."""
    body = b"".join(samples.PLAIN.element(number, vr, value) for number, vr, value in elements)
    return samples.PLAIN.element(0x0000, "UL", len(body)) + body


def store_request(sop_class: str, instance: str, message_id: int = 1) -> bytes:
    """The command set of a C-STORE request (PS3.7 9.3.1.1)."""
    return command(
        [
            (0x0002, "UI", sop_class),
            (0x0100, "US", 0x0001),
            (0x0110, "US", message_id),
            (0x0700, "US", 0),
            (0x0800, "US", 0x0001),
            (0x1000, "UI", instance),
        ]
    )


ECHO = command(
    [(0x0002, "UI", VERIFICATION), (0x0100, "US", 0x0030), (0x0110, "US", 7), (0x0800, "US", 0x0101)]
)


class Modality:
    """One association as its requestor."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[Context] = ((samples.CT_IMAGE, [samples.EXPLICIT]),),
        *,
        called: str = "ARCHIVE",
        calling: str | bytes = "MODALITY",
    ) -> None:
        """Raises Rejected, Aborted."""
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        calling = calling if isinstance(calling, bytes) else calling.encode()
        try:
            self.socket.sendall(request(contexts, called.encode(), calling))
            kind, content = self.receive()
            if kind == 3:
                raise Rejected(tuple(content[1:4]))
            self.accepted = self._results(content)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def release(self) -> None:
        """End the association in order."""
        self.socket.sendall(pdu(5, bytes(4)))
        kind, _ = self.receive()
        assert kind == 6
        self.socket.close()

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: type and content.  Raises Aborted."""
        head = self._exactly(6)
        kind, length = struct.unpack(">BxL", head)
        content = self._exactly(length)
        if kind == 7:
            raise Aborted
        return kind, content

    def send(self, context: int, header: int, content: bytes) -> None:
        """One PDU with one fragment."""
        self.socket.sendall(pdu(4, fragment(context, header, content)))

    def response(self) -> Response:
        """The next response."""
        kind, content = self.receive()
        assert (kind, content[5]) == (4, 3)
        values = {}
        at = 6
        while at < len(content):
            group, number, length = struct.unpack_from("<HHL", content, at)
            assert group == 0
            values[number] = content[at + 8 : at + 8 + length]
            at += 8 + length
        status, message_id = (int.from_bytes(values[number], "little") for number in (0x0900, 0x0120))
        return Response(status, values.get(0x0902, b"").decode().strip(), message_id)

    def echo(self, context: int = 1) -> Response:
        """C-ECHO."""
        self.send(context, 3, ECHO)
        return self.response()

    def store(
        self,
        data: bytes,
        *,
        instance: str = "1.2.3.4",
        sop_class: str = samples.CT_IMAGE,
        context: int = 1,
        piece: int = 16384,
    ) -> Response:
        """C-STORE of a data set, in fragments of this many bytes."""
        self.begin(data, instance=instance, sop_class=sop_class, context=context, piece=piece)
        return self.response()

    def begin(
        self,
        data: bytes,
        *,
        instance: str = "1.2.3.4",
        sop_class: str = samples.CT_IMAGE,
        context: int = 1,
        piece: int = 16384,
        whole: bool = True,
    ) -> None:
        """Send a C-STORE without waiting for its response, or without its last fragment."""
        self.send(context, 3, store_request(sop_class, instance))
        for at in range(0, max(len(data), 1), piece):
            last = 2 if whole and at + piece >= len(data) else 0
            self.send(context, last, data[at : at + piece])

    def _results(self, content: bytes) -> dict[int, tuple[int, str]]:
        """Context → result and accepted transfer syntax (PS3.8 9.3.3)."""
        results = {}
        at = 68
        while at < len(content):
            kind, length = struct.unpack_from(">BxH", content, at)
            if kind == 0x21:
                number, result = content[at + 4], content[at + 6]
                results[number] = (result, content[at + 12 : at + 4 + length].decode())
            at += 4 + length
        return results

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Aborted
            data += more
        return data
