"""Events, metrics and the summary of a call."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline_runs import planned

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.errors import BreakerOpen
from gaussianverse.pipeline.policy import History, failed
from gaussianverse.pipeline.run.events import EventLog, RayMetrics, goodput, publish_summary
from gaussianverse.pipeline.run.executor import FIT, Task
from gaussianverse.pipeline.run.watch import Summary, Work

RESULT = {**failed("timeout", "took too long"), "seconds": 5.0, "node": "node7"}
TASK = Task(FIT, SPLATS, 3, {"uid": "a"}, History({"timeout": 1}))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_appended_as_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    with EventLog(path) as log:
        log.opened(2)
        log.finished("a", "low_psnr", Work(3, 12.3456, "node7", 900, 31.5))
        assert len(lines(path)) == 2, "a line is there as soon as it is written"
        log.retried(TASK, RESULT)
    with pytest.raises(BreakerOpen), EventLog(path) as log:
        raise BreakerOpen("too much at once")
    found = lines(path)
    assert [line["event"] for line in found] == ["opened", "finished", "retried", "ended", "stopped"]
    assert found[2] | {"time": 0} == {
        "time": 0, "event": "retried", "task": "fit", "stage": "splats", "shard": 3, "uid": "a",
        "reason": "timeout", "message": "took too long", "attempts": 1, "seconds": 5.0, "node": "node7",
    }  # fmt: skip
    assert found[1] | {"time": 0} == {
        "time": 0, "event": "finished", "shard": 3, "uid": "a", "quarantined": True, "reason": "low_psnr",
        "seconds": 12.346, "node": "node7", "gaussians": 900, "psnr": 31.5, "taken": False,
    }  # fmt: skip
    assert (found[4]["error"], found[4]["message"]) == ("BreakerOpen", "too much at once")


class Metrics:
    """Stands in for ray.util.metrics."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def _one(self, name: str, description: str, tag_keys: tuple[str, ...] = (), **_: object) -> Any:
        values = self.values

        def add(value: float, tags: dict[str, str] | None = None) -> None:
            assert set(tags or {}) == set(tag_keys)
            key = ",".join([name, *(tags or {}).values()])
            values[key] = values.get(key, 0) + value

        return SimpleNamespace(inc=add, set=add, observe=add)

    Counter = Gauge = Histogram = _one


def test_metrics_count_outcomes_reasons_retries_and_seconds() -> None:
    metrics = Metrics()
    watch = RayMetrics(metrics)
    watch.opened(9)
    watch.waited(7.5)
    watch.worked(TASK, RESULT)
    watch.worked(TASK, failed("worker_killed", "it has no seconds"))
    watch.finished("a", "", Work(3))
    watch.finished("b", "low_psnr", Work(3))
    watch.retried(TASK, RESULT)
    assert metrics.values == {
        "gaussianverse_objects,ok": 1,
        "gaussianverse_objects,quarantined": 1,
        "gaussianverse_quarantined,low_psnr": 1,
        "gaussianverse_retries,fit,timeout": 1,
        "gaussianverse_task_seconds,fit,node7": 5.0,
        "gaussianverse_oldest_task_seconds": 7.5,
    }


def test_the_summary_is_kept_beside_the_journal_and_is_no_part_of_the_dataset(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a"])
    summary = Summary(shards=1, objects=1, fit_seconds=30.0, slot_seconds=40.0)
    key = publish_summary(storage, run, summary, started=0.0)
    assert not layout.in_dataset(key)
    assert key.startswith("runs/summary-19700101T000000-")
    found = json.loads(storage.get(key))
    assert (found["goodput"], found["objects"], found["config_digest"]) == (0.75, 1, run.digest)
    assert found["stopped"] == ""
    assert goodput(Summary()) == 0.0
