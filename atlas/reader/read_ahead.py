"""Fetch items ahead of their reader, by threads, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
_THREADS = 16
"""Threads at most."""


def read_ahead(
    fetch: Callable[[S], T], items: Iterable[S], count: int, size: Callable[[S], int] = lambda item: 1
) -> Iterator[T]:
    """Yield `fetch(item)` for each item; items of sizes up to `count` together are fetched ahead, a thread each."""
    if count == 0:
        yield from map(fetch, items)
        return
    waiting: deque[tuple[int, Future[T]]] = deque()
    pool = ThreadPoolExecutor(min(count, _THREADS), "atlas-read")
    try:
        for item in items:
            waiting.append((size(item), pool.submit(fetch, item)))
            while sum(of_one for of_one, _ in waiting) > count:
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
