"""A store that fails on the wire: nothing is missing, double or quarantined."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import data_of, dataset, planned, publish_all
from servers.fault_proxy import CUT, FAULTS, LOST, STALLED, UNAVAILABLE, UNSENT, FaultProxy, proxying
from servers.moto_server import BUCKET
from test_pipeline_driver import Inline, Watch

from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.policy import INFRASTRUCTURE, PolicyConfig, failed
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import PACK, Task
from gaussianverse.pipeline.store import publish as publishing
from gaussianverse.pipeline.store.publish import Published

UIDS = ["a", "b", "c"]


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with proxying(s3_endpoint) as started:
        yield started


def storage_through(proxy: FaultProxy, tmp_path: Path, name: str = "out") -> S3Storage:
    config = StoreOptions(
        endpoint_url=proxy.url, region="us-east-1", max_attempts=1, connect_timeout_s=2, read_timeout_s=1.5
    )
    return S3Storage(f"s3://{BUCKET}/{tmp_path.name}/{name}", config)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_answer_costs_one_attempt(fault: str, proxy: FaultProxy, tmp_path: Path) -> None:
    storage = storage_through(proxy, tmp_path)
    left = [fault]
    proxy.fault = lambda method, path: left.pop() if method == "PUT" and left else ""
    ended = publishing.publish(storage, "k", b"data" * 1000, pause_s=0)
    reached = fault in (LOST, CUT)
    assert ended is (Published.OURS if reached else Published.WRITTEN)
    assert proxy.met[fault] == 1
    assert storage.get("k") == b"data" * 1000


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_to_a_read_is_a_fault_that_may_pass(fault: str, proxy: FaultProxy, tmp_path: Path) -> None:
    storage = storage_through(proxy, tmp_path)
    storage.put_if_absent("k", b"data" * 1000)
    proxy.fault = fault
    for read in (partial(storage.get, "k"), partial(storage.read, "k", 8, 400)):
        with pytest.raises(StoreError):
            read()
    with pytest.raises(StoreError):
        list(storage.list(""))
    proxy.fault = ""
    assert storage.get("k") == b"data" * 1000


@pytest.mark.parametrize("fault", [CUT, LOST])
def test_a_missing_key_whose_answer_breaks_off_is_a_fault_that_may_pass(
    fault: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    """botocore reads the body of an error outside its own error handling."""
    storage = storage_through(proxy, tmp_path)
    proxy.fault = fault
    with pytest.raises(StoreError):
        storage.get("none")
    with pytest.raises(StoreError):
        storage.read("none", 0, 5)


class Remote(Inline):
    """Made-up fits with a store that may fail; failures are reported as tasks of the pipeline report them."""

    def result(self, handle: Any) -> Facts:
        try:
            return super().result(handle)
        except StoreError as error:
            return failed(INFRASTRUCTURE, error)


def whole(tmp_path: Path) -> dict[str, bytes]:
    storage = LocalStorage(tmp_path / "whole")
    run = planned(storage, UIDS, shard_size=2)
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        for shard in range(run.n_shards):
            pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    return dataset(storage)


def driven(storage: S3Storage, policy: PolicyConfig, **options: Any) -> Watch:
    run = planned(storage, UIDS, shard_size=2)
    watch = Watch()
    executor = Remote(storage, run, **options)  # type: ignore[arg-type]
    executor._done = partial(_done, executor)  # type: ignore[method-assign]
    Driver(storage, run, executor, policy, shards=range(run.n_shards), watches=[watch]).run()
    finalize(storage, run)
    return watch


def _done(executor: Remote, task: Task) -> Facts:
    """Run a task as `Inline` does, with the bytes of `publish_all`."""
    from pipeline_runs import publish_one

    run, storage = executor._run, executor.storage
    if task.kind == PACK:
        pack.pack(storage, run, task.stage, task.shard)
        return {"status": "ok"}
    uid = str(task.row["uid"])
    publish_one(storage, run, task.stage, dict(task.row), data=data_of(task.stage, uid))
    return {"status": "ok", "uid": uid}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = {**publishing.publish.__kwdefaults__, "pause_s": 0.01}
    monkeypatch.setattr(publishing.publish, "__kwdefaults__", hasty)


def test_every_seventh_request_fails_in_some_way_and_the_dataset_is_the_same(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    requests = itertools.count(1)
    quick = [LOST, CUT, UNSENT]  # the client waits long after a stall or a 503, by design

    def now_and_then(method: str, path: str) -> str:
        sevens, rest = divmod(next(requests), 7)
        # another one of each seven, or a task of seven requests would lose the same one at every attempt
        return "" if rest != sevens % 7 else quick[sevens % 3]

    storage = storage_through(proxy, tmp_path)
    run = planned(storage, UIDS, shard_size=2)
    proxy.fault = now_and_then
    policy = PolicyConfig(pause_s=0.01, pause_max_s=0.01, breaker_store_failures=50)
    executor = Remote(storage, run)  # type: ignore[arg-type]
    executor._done = partial(_done, executor)  # type: ignore[method-assign]
    watch = Watch()
    Driver(storage, run, executor, policy, shards=range(run.n_shards), watches=[watch], sleep=lambda _: None).run()
    assert all(proxy.met[fault] > 1 for fault in quick), proxy.met
    proxy.fault = ""
    finalize(storage, run)
    assert watch.ends == dict.fromkeys(UIDS, False), "nothing was quarantined"
    assert list(verify(storage, run)) == []
    assert dataset(storage) == whole(tmp_path)


_SLOW = pytest.mark.slow
OUTAGES = [
    (UNSENT, 1.0),
    pytest.param(UNAVAILABLE, 60.0, marks=_SLOW),
    pytest.param(STALLED, 60.0, marks=_SLOW),
    pytest.param(UNSENT, 60.0, marks=_SLOW),
]


@pytest.mark.parametrize(("fault", "seconds"), OUTAGES)
def test_an_outage_is_outlasted(fault: str, seconds: float, proxy: FaultProxy, tmp_path: Path) -> None:
    storage = storage_through(proxy, tmp_path)
    calls, over = [0], threading.Event()

    def after_a_while(method: str, path: str) -> str:
        calls[0] += 1
        if calls[0] == 25:
            threading.Timer(seconds, over.set).start()
        return fault if calls[0] >= 25 and not over.is_set() else ""

    proxy.fault = after_a_while
    policy = PolicyConfig(pause_s=0.05, pause_max_s=0.2, breaker_store_failures=1000, infrastructure_retries=500)
    started = time.monotonic()
    watch = driven(storage, policy)
    assert time.monotonic() - started > seconds
    assert proxy.met[fault] > 1
    assert watch.ends == dict.fromkeys(UIDS, False)
    assert dataset(storage) == whole(tmp_path)
