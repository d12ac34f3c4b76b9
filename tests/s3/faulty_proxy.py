"""FaultyProxy: an S3 server that misbehaves, in front of one that does not."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding", "keep-alive", "server", "date"})


@dataclass
class Exchange:
    """A request on its way to the server, and what comes back."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""
    answer_headers: dict[str, str] = field(default_factory=dict)
    forward: Callable[[], None] = lambda: None
    """Ask the server; fills in the answer."""
    send: Callable[[bytes], None] = lambda _: None
    """Send bytes of the body to the client; the headers, which promise ``answer``, go first."""
    wait: Callable[[float], object] = lambda _: None
    """Wait so many seconds, or until the proxy ends."""
    done: bool = False
    """The fault has sent all that is to be sent; the connection is closed."""


Fault = Callable[[Exchange], None]


class FaultyProxy:
    """Passes requests on, but for those that a fault is planned for: the next of its method, in order."""

    def __init__(self, upstream: str) -> None:
        self._host = urlsplit(upstream).netloc
        self._planned: list[tuple[str, Fault]] = []
        self._always: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.seen: list[Exchange] = []
        """All requests, in order of arrival."""

        handle = self._handle

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                handle(self)

            do_HEAD, do_PUT, do_POST, do_DELETE = (do_GET,) * 4  # noqa: N815  names of http.server

            def handle_one_request(self) -> None:
                with suppress(ConnectionError, socket.timeout):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, method: str, *faults: Fault) -> None:
        """Do this to the next requests of a method, one each."""
        self._planned += [(method, fault) for fault in faults]

    def behave(self) -> None:
        """Forget all faults, and what was seen."""
        with self._lock:
            self._planned, self._always, self.seen = [], {}, []

    def always(self, method: str, fault: Fault | None) -> None:
        """Do this to each request of a method from now on; None: no more."""
        self._always.pop(method, None)
        if fault is not None:
            self._always[method] = fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fault_for(self, exchange: Exchange) -> Fault | None:
        with self._lock:
            self.seen.append(exchange)
            for number, (method, fault) in enumerate(self._planned):
                if method == exchange.method:
                    del self._planned[number]
                    return fault
        return self._always.get(exchange.method)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        exchange = Exchange(handler.command, handler.path, dict(handler.headers), handler.rfile.read(length))
        exchange.forward = lambda: self._forward(exchange)
        exchange.wait = self._ending.wait
        began: list[bool] = []

        def send(data: bytes) -> None:
            if not began:
                began.append(True)
                handler.send_response(exchange.status)
                for name, value in exchange.answer_headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
            handler.wfile.write(data)
            handler.wfile.flush()

        exchange.send = send
        fault = self._fault_for(exchange)
        if fault is None:
            exchange.forward()
        else:
            fault(exchange)
        if exchange.done:
            handler.close_connection = True
        else:
            send(exchange.answer)

    def _forward(self, exchange: Exchange) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.request(exchange.method, exchange.path, exchange.body, exchange.headers)
            answer = connection.getresponse()
            exchange.status, exchange.answer = answer.status, answer.read()
            exchange.answer_headers = {
                name: value for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION
            }
        finally:
            connection.close()
        if exchange.method != "HEAD" and "content-length" not in map(str.lower, exchange.answer_headers):
            exchange.answer_headers["Content-Length"] = str(len(exchange.answer))


def answers(status: int, code: str) -> Fault:
    """The server refuses, or fails, without doing anything."""

    def fault(exchange: Exchange) -> None:
        text = f"<Error><Code>{code}</Code><Message>as planned</Message></Error>"
        exchange.status, exchange.answer = status, b"" if exchange.method == "HEAD" else text.encode()
        exchange.answer_headers = {
            "Content-Type": "application/xml",
            "Content-Length": str(len(exchange.answer)),
        }

    return fault


def passes_on(exchange: Exchange) -> None:
    """No fault."""
    exchange.forward()


def is_silent(exchange: Exchange) -> None:
    """The server never answers."""
    exchange.wait(60)
    exchange.done = True


def hangs_up(exchange: Exchange) -> None:
    """The connection is closed without an answer, and nothing was done."""
    exchange.done = True


def loses_the_answer(exchange: Exchange) -> None:
    """The work is done, and the connection closed before the answer."""
    exchange.forward()
    exchange.done = True


def breaks_off(exchange: Exchange) -> None:
    """Half of the body comes."""
    exchange.forward()
    exchange.send(exchange.answer[: len(exchange.answer) // 2])
    exchange.done = True


def falls_silent(exchange: Exchange) -> None:
    """Half of the body comes, then nothing."""
    exchange.forward()
    exchange.send(exchange.answer[: len(exchange.answer) // 2])
    exchange.wait(60)
    exchange.done = True


def trickles(exchange: Exchange) -> None:
    """The body comes byte by byte: never silent for long, never done."""
    exchange.forward()
    for number in range(len(exchange.answer)):
        exchange.send(exchange.answer[number : number + 1])
        exchange.wait(0.05)
    exchange.done = True


def flips_a_bit(exchange: Exchange) -> None:
    """A byte of the body is another."""
    exchange.forward()
    exchange.answer = _flipped(exchange.answer)


def receives_wrong(exchange: Exchange) -> None:
    """A byte of what was sent arrives as another, and the server does not notice."""
    exchange.body = _flipped(exchange.body)
    exchange.headers = {k: v for k, v in exchange.headers.items() if not _about_the_body(k)}
    exchange.forward()
    exchange.answer_headers = {k: v for k, v in exchange.answer_headers.items() if not _about_the_body(k)}


def without(header: str) -> Fault:
    """The server ignores a header."""

    def fault(exchange: Exchange) -> None:
        exchange.headers = {k: v for k, v in exchange.headers.items() if k.lower() != header}
        exchange.forward()

    return fault


def shifts_the_range(exchange: Exchange) -> None:
    """Another range of the object comes than was asked for."""
    first, last = exchange.headers["Range"].removeprefix("bytes=").split("-")
    exchange.headers["Range"] = f"bytes={int(first) + 1}-{int(last) + 1}"
    exchange.forward()


def pretends(exchange: Exchange) -> None:
    """The server says that it did, and does not."""
    exchange.status, exchange.answer_headers = 204 if exchange.method == "DELETE" else 200, {"ETag": '"x"'}
    if exchange.method != "DELETE":
        exchange.answer_headers["Content-Length"] = "0"


def talks_html(exchange: Exchange) -> None:
    """Something in between answers in the server's place."""
    exchange.status, exchange.answer = 200, b"<html><body>Please log in"
    exchange.answer_headers = {"Content-Type": "text/html", "Content-Length": str(len(exchange.answer))}


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _about_the_body(header: str) -> bool:
    return header.lower() in ("x-amz-checksum-sha256", "x-amz-content-sha256", "content-md5")
