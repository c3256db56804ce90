"""Records of a call: JSON lines while it runs, metrics for Ray's dashboard, and a summary at its end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from gaussianverse.atlas.canonical_json import to_json, to_json_file
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import Counts
from gaussianverse.pipeline.policy import text_of
from gaussianverse.pipeline.run.executor import Task
from gaussianverse.pipeline.run.watch import Summary, Watch, Work
from gaussianverse.pipeline.store.publish import publish


class EventLog(Watch):
    """Appends events to a file as JSON lines, `{"time": .., "event": .., ..}`, and flushes each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is None:
            self.write("ended")
        else:
            self.write("stopped", error=type(value).__name__, message=str(value)[:500])
        self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line."""
        line = {"time": round(time.time(), 3), "event": event, **fields}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def opened(self, done: int) -> None:
        """See `Watch`."""
        self.write("opened", done=done)

    def finished(self, uid: str, reason: str, work: Work) -> None:
        """See `Watch`."""
        self.write(
            "finished",
            shard=work.shard,
            uid=uid,
            quarantined=bool(reason),
            reason=reason,
            seconds=round(work.seconds, 3),
            node=work.node,
            gaussians=work.gaussians,
            psnr=round(work.psnr, 3),
            taken=work.taken,
        )

    def retried(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        self._write_task("retried", task, result)

    def held(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        self._write_task("held", task, result)

    def _write_task(self, event: str, task: Task, result: Facts) -> None:
        self.write(
            event,
            task=task.kind,
            stage=task.stage,
            shard=task.shard,
            uid=str(task.row.get("uid", "")),
            reason=str(result["reason"]),
            message=text_of(result),
            attempts=task.history.attempts,
            seconds=round(float(result.get("seconds", 0.0)), 3),
            node=str(result.get("node", "")),
        )


_SECONDS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
"""Upper ends of the bins of the tasks' seconds."""


class RayMetrics(Watch):
    """Metrics for Ray's exporter, `ray.util.metrics`, which `deploy/grafana.json` and `deploy/alerts.yaml` read."""

    def __init__(self, metrics: Any) -> None:
        self._objects = metrics.Counter(
            "gaussianverse_objects", description="Objects that ended", tag_keys=("outcome",)
        )
        self._quarantined = metrics.Counter(
            "gaussianverse_quarantined", description="Objects that were quarantined", tag_keys=("reason",)
        )
        self._retries = metrics.Counter(
            "gaussianverse_retries", description="Tasks tried again", tag_keys=("kind", "reason")
        )
        self._seconds = metrics.Histogram(
            "gaussianverse_task_seconds",
            description="Seconds of tasks that came to their end",
            boundaries=_SECONDS,
            tag_keys=("kind", "node"),
        )
        self._oldest = metrics.Gauge(
            "gaussianverse_oldest_task_seconds", description="Seconds for which the oldest task has been running"
        )

    def waited(self, oldest_s: float) -> None:
        """See `Watch`."""
        self._oldest.set(oldest_s)

    def worked(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        if "seconds" in result:
            self._seconds.observe(result["seconds"], tags={"kind": task.kind, "node": str(result["node"])})

    def finished(self, uid: str, reason: str, work: Work) -> None:
        """See `Watch`."""
        self._objects.inc(1, tags={"outcome": "quarantined" if reason else "ok"})
        if reason:
            self._quarantined.inc(1, tags={"reason": reason})

    def retried(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        self._retries.inc(1, tags={"kind": task.kind, "reason": str(result["reason"])})


def goodput(summary: Summary) -> float:
    """Seconds of published fits divided by slots x wall time: 1 if no slot waits and no work is lost."""
    return summary.fit_seconds / summary.slot_seconds if summary.slot_seconds else 0.0


def publish_summary(
    storage: Storage, run: Run, summary: Summary, started: float, counts: Counts | None = None, *, stopped: str = ""
) -> str:
    """Publish the summary of a call under a key of its own below `runs/`; returns the key.

    Args:
        storage: store of the run.
        run: the run.
        summary: counts and times of the call.
        started: seconds since 1970, UTC.
        counts: what became of the objects of the requested shards, as the call's last line says; None if it stopped.
        stopped: class of the error that ended the call, "" if none did.
    """
    when = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started))
    key = layout.summary(f"{when}-{socket.gethostname()}-{os.getpid()}")
    values = {
        "started": round(started, 3),
        "seconds": round(time.time() - started, 3),
        "config_digest": run.digest,
        "stopped": stopped,
        **asdict(summary),
        "fit_seconds": round(summary.fit_seconds, 3),
        "slot_seconds": round(summary.slot_seconds, 3),
        "goodput": round(goodput(summary), 4),
        **({} if counts is None else {"requested": {**asdict(counts), "quarantined": counts.quarantined}}),
    }
    publish(storage, key, to_json_file({**values, "sha256": summary_sha256(values)}))
    return key


def summary_sha256(values: Mapping[str, Any]) -> str:
    """The hash that a summary carries of its other values, by which `verify` sees that it is whole."""
    return sha256_of(to_json({name: value for name, value in values.items() if name != "sha256"}))
