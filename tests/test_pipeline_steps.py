"""Shares of fits that workers tell and the driver reads; `test_end_to_end_terminal` has them through Ray."""

from __future__ import annotations

import pickle
import threading
from types import SimpleNamespace

import pytest
import ray.exceptions

from gaussianverse.pipeline.run import steps
from gaussianverse.pipeline.run.steps import MOST, Shares, Teller


class Head:
    """Stands in for Ray's key-value store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values, self.puts, self.lost, self.now = dict[str, str](), 0, False, 100.0
        self.hangs = threading.Event()
        self.hangs.set()
        monkeypatch.setattr(steps, "_head", lambda: self)
        monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _internal_kv_initialized(self) -> bool:
        return True

    def _answer(self) -> None:
        if self.lost:
            raise ray.exceptions.RpcError("no head")

    def _internal_kv_put(self, key: str, value: str, namespace: str) -> None:
        self.puts += 1
        self.hangs.wait(60)
        self._answer()
        self.values[key] = value

    def _internal_kv_get(self, key: str, namespace: str) -> bytes | None:
        self._answer()
        return self.values[key].encode() if key in self.values else None

    def _internal_kv_del(self, prefix: str, del_by_prefix: bool, namespace: str) -> None:
        self._answer()
        self.values = {key: value for key, value in self.values.items() if not key.startswith(prefix)}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    return Head(monkeypatch)


def tell(teller: Teller, share: float) -> None:
    """Tell a share, and wait until it is written."""
    teller(share)
    assert teller._writing is not None
    teller._writing.join()


def test_the_driver_reads_what_its_own_workers_told(head: Head) -> None:
    ours, others = Shares(), Shares()
    tell(pickle.loads(pickle.dumps(ours.teller("a", 2))), 0.25)
    tell(others.teller("b", 2), 0.5)
    assert ours.read(["a", "b"]) == {"a": 0.25}
    ours.forget()
    assert ours.read(["a"]) == {}
    assert others.read(["b"]) == {"b": 0.5}


@pytest.mark.parametrize("slots", [1, MOST, 100 * MOST])
def test_the_head_hears_a_few_words_a_second_from_all_workers_together(head: Head, slots: int) -> None:
    teller, seconds = Shares().teller("a", slots), 200
    for step in range(seconds * 10):
        tell(teller, step / 2000)
        head.now += 0.1
    assert 1 <= head.puts * min(slots, 100 * MOST) / seconds <= 3 * MOST


def test_a_head_that_does_not_answer_fails_no_fit_and_is_left_alone_for_a_while(head: Head) -> None:
    shares, head.lost = Shares(), True
    teller = shares.teller("a", 1)
    for _ in range(50):
        tell(teller, 0.5)
        head.now += 1.0
    assert head.puts == 1
    assert shares.read(["a"]) == {}
    shares.forget()
    head.lost = False
    head.now += 60.0
    tell(teller, 0.75)
    assert shares.read(["a"]) == {"a": 0.75}


def test_no_fit_waits_for_a_head_that_hangs(head: Head) -> None:
    head.hangs.clear()
    shares = Shares()
    teller = shares.teller("a", 1)
    for step in range(50):
        teller(step / 100)
        head.now += 1.0
    assert (head.puts, head.values) == (1, {})
    head.hangs.set()
    assert teller._writing is not None
    teller._writing.join()
    assert shares.read(["a"]) == {"a": 0.0}
