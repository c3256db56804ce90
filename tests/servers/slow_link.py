"""A link to a server that takes its time: so many seconds a request, so many bytes a second. It counts both.

It runs in a process of its own, so that a benchmark's CPU time is not that of the link.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

_PIECE = 1 << 16


class SlowLink:
    """The link's end for clients, and what has gone over it."""

    def __init__(self, url: str, counts: Any) -> None:
        self.url, self._counts = url, counts

    def took(self) -> tuple[int, int]:
        """Requests, and bytes of answers, since the last time."""
        with self._counts.get_lock():
            found = int(self._counts[0]), int(self._counts[1])
            self._counts[0] = self._counts[1] = 0
        return found


class _Link:
    def __init__(self, upstream: tuple[str, int], latency_s: float, bytes_per_s: float, counts: Any) -> None:
        self._upstream, self._latency_s, self._rate, self._counts = upstream, latency_s, bytes_per_s, counts
        self._free = 0.0
        """When the link has sent what was given to it."""

    async def serve(self, port: Any) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        with suppress(OSError):
            await asyncio.gather(self._requests(reader, up_writer), self._answers(up_reader, writer))

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            if data.startswith((b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")):
                self._count(0, 1)
                await asyncio.sleep(self._latency_s)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            self._count(1, len(data))
            now = time.monotonic()
            self._free = max(self._free, now) + len(data) / self._rate
            await asyncio.sleep(self._free - now)
            writer.write(data)
            await writer.drain()
        writer.close()

    def _count(self, which: int, more: int) -> None:
        with self._counts.get_lock():
            self._counts[which] += more


def _run(upstream: tuple[str, int], latency_s: float, bytes_per_s: float, counts: Any, port: Any) -> None:
    asyncio.run(_Link(upstream, latency_s, bytes_per_s, counts).serve(port))


@contextmanager
def linked(upstream: str, *, latency_s: float = 0.0, bytes_per_s: float = 1e12) -> Iterator[SlowLink]:
    """A link to the server at a URL, for as long as the context lasts."""
    context = multiprocessing.get_context("spawn")
    counts, port = context.Array("q", 2), context.Queue()
    to = urlsplit(upstream)
    process = context.Process(
        target=_run, args=((to.hostname, to.port), latency_s, bytes_per_s, counts, port), daemon=True
    )
    process.start()
    try:
        yield SlowLink(f"http://127.0.0.1:{port.get(timeout=60)}", counts)
    finally:
        process.kill()
        process.join()
