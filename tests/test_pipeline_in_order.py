from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gaussianverse.pipeline.dataset import in_order


@pytest.mark.parametrize("url", ["s3://bucket/out", "/folder"])
def test_answers_come_in_order_and_few_are_under_way(url: str) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def read(item: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001 * (item % 3))
        with lock:
            under_way -= 1
        return item

    taken = []
    storage: Any = SimpleNamespace(url=url)
    asked = iter(range(100))
    for item in in_order.in_order(storage, read, asked):
        taken.append(item)
        if len(taken) == 10:
            assert next(asked) <= 10 + in_order.REQUESTS  # what is not wanted yet is not read
    assert taken == [k for k in range(100) if k in taken]
    assert len(taken) == 99
    assert 1 <= most <= (in_order.REQUESTS if url.startswith("s3") else 1)


def test_an_error_comes_when_its_turn_does() -> None:
    def read(item: int) -> int:
        if item == 5:
            raise ValueError("the fifth")
        return item

    storage: Any = SimpleNamespace(url="s3://bucket/out")
    found = in_order.in_order(storage, read, range(40))
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="fifth"):
        next(found)
