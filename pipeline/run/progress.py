"""The progress bar: objects done, objects per hour, quarantined, time left."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from gaussianverse.pipeline.run.executor import Task
from gaussianverse.pipeline.run.watch import Watch

log = logging.getLogger(__name__)


class ProgressBar(Watch):
    """Prints the progress of a run to stderr."""

    def __init__(self, total: int) -> None:
        self._bar: Any = tqdm(
            total=total,
            unit="object",
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",
            desc="starting",
        )
        self._started, self._fresh, self._quarantined = time.monotonic(), 0, 0
        self._show(0)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def opened(self, done: int) -> None:
        """See `Watch`."""
        self._show(done)

    def finished(self, uid: str, quarantined: bool) -> None:
        """See `Watch`."""
        self._fresh += 1
        self._quarantined += quarantined
        self._show(1)

    def retried(self, task: Task, reason: str, text: str) -> None:
        """See `Watch`."""
        log.warning("%s failed (%s: %s), attempt %d follows", task.name, reason, text, task.history.attempts + 1)

    def held(self, task: Task, reason: str, text: str) -> None:
        """See `Watch`."""
        log.warning("%s gave up (%s: %s); its quarantine waits for the rest of its shard", task.name, reason, text)

    def _show(self, done: int) -> None:
        count = self._bar.n + done
        hours = (time.monotonic() - self._started) / 3600
        rate = self._fresh / hours if self._fresh else 0.0
        seconds = int(3600 * (self._bar.total - count) / rate) if rate else 0
        left = f"{tqdm.format_interval(seconds)} left" if rate else "time left unknown"
        self._bar.set_description_str(
            f"{count}/{self._bar.total} objects, {rate:.0f}/h, {self._quarantined} quarantined, {left}", refresh=False
        )
        self._bar.update(done)
        self._bar.refresh()
