"""Fetch items ahead of their reader, by threads, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def read_ahead(fetch: Callable[[S], T], items: Iterable[S], count: int) -> Iterator[T]:
    """Yield `fetch(item)` for each item; up to `count` of them are fetched ahead, by as many threads."""
    if count == 0:
        yield from map(fetch, items)
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(count, "atlas-read")
    try:
        for item in items:
            waiting.append(pool.submit(fetch, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
