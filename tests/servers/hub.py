"""A Hugging Face Hub of one dataset on 127.0.0.1: what its file system asks for, of the files of a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

REPO = "somebody/set"
_API = f"/api/datasets/{REPO}"
_FILES = f"/datasets/{REPO}/resolve/main/"


def _entry(root: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(root).as_posix()
    size = path.stat().st_size if path.is_file() else 0
    return {"type": "file" if path.is_file() else "directory", "path": name, "size": size, "oid": "0" * 40}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]
    """Method, path and range of each request."""

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed:
            path = unquote(urlsplit(self.path).path)
            self.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        return parsed

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in (_API, f"{_API}/revision/main"):
            self._json({"id": REPO, "sha": "0" * 40, "private": False, "tags": [], "downloads": 0, "likes": 0})
        elif path.startswith(f"{_API}/tree/main"):
            folder = self.root / path.removeprefix(f"{_API}/tree/main").strip("/")
            deep = "true" in [value.lower() for value in parse_qs(urlsplit(self.path).query).get("recursive", [])]
            if not folder.is_dir():
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                self._json([_entry(self.root, p) for p in sorted(folder.rglob("*") if deep else folder.iterdir())])
        elif path.startswith(_FILES) and (self.root / path.removeprefix(_FILES)).is_file():
            self._file((self.root / path.removeprefix(_FILES)).read_bytes())
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if not asked:
            self._answer(400, b"", {})
            return
        paths = [self.root / name for name in asked["paths"]]
        self._json([_entry(self.root, path) for path in paths if path.exists()])

    def _file(self, data: bytes) -> None:
        span = self.headers.get("Range", "").removeprefix("bytes=")
        if not span:
            self._answer(200, data, {})
            return
        first, last = (int(number) for number in span.split("-"))
        self._answer(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(root: Path, asked: list[str]) -> Iterator[str]:
    """The endpoint's address, for as long as the context lasts; requests are added to `asked`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"root": root, "asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
