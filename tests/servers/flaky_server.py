"""A read-only S3 server over a folder, whose answers can be cut short, refused, or of another version."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Behaviour:
    """Orders to the server, and the requests that it got.

    Attributes:
        root: bucket and key below it.
        cut_after: bytes after which each of the next answers breaks off, in turn.
        refuse: status of each of the next answers, in turn, before any cut; 0 = do not refuse.
        etag: of every object.
        anonymous: refuse requests that are signed.
        hang_up: close the connection after each answer, without a word.
        requests: (method, path, Range header).
        headers: of each request, by names in small letters.
    """

    root: Path
    cut_after: list[int] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    etag: str = '"one"'
    anonymous: bool = False
    ranges: bool = True
    hang_up: bool = False
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        b = self.behaviour
        b.requests.append((self.command, self.path, asked))
        b.headers.append({name.lower(): value for name, value in self.headers.items()})
        if b.refuse and (status := b.refuse.pop(0)):
            return self._error(status, "SlowDown")
        if b.anonymous and "Authorization" in self.headers:
            return self._error(403, "AccessDenied")
        if self.headers.get("If-Match", b.etag) != b.etag:
            return self._error(412, "PreconditionFailed")
        path = b.root / unquote(self.path.partition("?")[0].lstrip("/"))
        if not path.is_file():
            return self._error(404, "NoSuchKey")
        whole = path.read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if b.ranges else None
        start, end = (int(span[1]), int(span[2] or len(whole) - 1)) if span else (0, len(whole) - 1)
        if start >= len(whole):
            return self._error(416, "InvalidRange")
        data = whole[start : end + 1]
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", b.etag)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if b.cut_after:
            self.wfile.write(data[: b.cut_after.pop(0)])
            self.close_connection = True
            return None
        self.wfile.write(data)
        self.close_connection = b.hang_up
        return None

    do_HEAD = do_GET  # noqa: N815

    def _error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The endpoint's URL, for as long as the context lasts; https with `tls`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"behaviour": behaviour}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up as they like
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
