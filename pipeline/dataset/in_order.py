"""Reads ahead: the answers of a store come in the order in which they are wanted, several requests at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gaussianverse.atlas.store import is_s3
from gaussianverse.atlas.store.storage import Storage

S = TypeVar("S")
T = TypeVar("T")

REQUESTS = 16
"""Requests at a time."""


def in_order(storage: Storage, read: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield `read` of each item, in order, with up to `REQUESTS` of them under way.

    A folder is read one file at a time: there is nothing to wait for. What `read` raises comes when its turn does.
    """
    if not is_s3(storage.url):
        yield from map(read, items)
        return
    with ThreadPoolExecutor(REQUESTS) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) >= REQUESTS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
