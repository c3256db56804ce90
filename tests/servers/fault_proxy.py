"""An HTTP proxy before an S3 server that does what networks and stores do: refuse, stall, cut, lose.

with proxying(endpoint) as proxy:
    proxy.fault = "lost"        # or a function of (method, path) to one of them or ""
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

UNAVAILABLE = "unavailable"
"""503 SlowDown, without asking the server."""
STALLED = "stalled"
"""The request is read, and nothing is ever said."""
CUT = "cut"
"""The answer breaks off after its first half; a request's effect has happened."""
LOST = "lost"
"""The request's effect happens, and the connection is reset in place of an answer."""
UNSENT = "unsent"
"""The connection is reset half-way through the request, which the server never sees."""
FAULTS = (UNAVAILABLE, STALLED, CUT, LOST, UNSENT)
EXPIRED = "expired"
"""400 ExpiredToken, without asking the server."""
DENIED = "denied"
"""403 AccessDenied, without asking the server."""

Fault = str | Callable[[str, str], str]

_ERRORS = {UNAVAILABLE: (503, b"SlowDown"), EXPIRED: (400, b"ExpiredToken"), DENIED: (403, b"AccessDenied")}
_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>as the test says</Message></Error>"


class FaultProxy(ThreadingHTTPServer):
    """Forwards to one server; `fault` may change at any time."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.fault: Fault = ""
        self.ahead_s = 0.0
        """Seconds by which the clock is ahead that its answers tell."""
        self.met: Counter[str] = Counter()
        """Number of requests that met each fault; "" counts those that were forwarded whole."""
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _any(self) -> None:
        chosen = self.server.fault
        fault = chosen(self.command, self.path) if callable(chosen) else chosen
        self.server.met[fault] += 1
        length = int(self.headers.get("Content-Length", 0))
        if fault == UNSENT:
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if fault == STALLED:
            self.server.closing.wait(60)
            return self._reset()
        if fault in _ERRORS:
            status, code = _ERRORS[fault]
            return self._answer(status, [("Content-Type", "application/xml")], _ERROR % code)
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            # the Host header stays the client's: its signature covers it
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        if fault == LOST:
            return self._reset()
        self._answer(answer.status, answer.getheaders(), data, cut=fault == CUT)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        given = next((v for n, v in headers if n.lower() == "content-length"), str(len(data)))
        self.send_header("Content-Length", given if self.command == "HEAD" else str(len(data)))
        if cut and len(data) < 2:  # nothing to break off but the headers
            return self._reset()
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.ahead_s)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def proxying(upstream: str) -> Iterator[FaultProxy]:
    """A proxy for as long as the context lasts."""
    proxy = FaultProxy(upstream)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)
