"""The progress bar of a run: it moves with the steps of fits, and says what came of the objects so far."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import DAMAGED, text_of
from gaussianverse.pipeline.run.bar import FIT_SHARE, Bar, Tally
from gaussianverse.pipeline.run.executor import FIT, Task
from gaussianverse.pipeline.run.watch import Watch, Work

log = logging.getLogger(__name__)


class ProgressBar(Watch):
    """Prints the progress of a run to stderr.

    Args:
        total: objects of the requested shards.
        shares: shares of the fits under way that are done, by uid.
        clock: seconds, monotonic.
    """

    def __init__(
        self, total: int, shares: Callable[[], Mapping[str, float]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tally, self._bar, self._ask, self._clock = Tally(total), Bar(total, clock), shares, clock
        self._started, self._before = clock(), 0
        self._shares: Mapping[str, float] = {}
        self._fitted: set[str] = set()
        """Objects whose atlas is still to be made."""
        self._again: set[str] = set()
        """Objects that are fitted again because something of theirs was damaged, perhaps only their views."""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def opened(self, done: int) -> None:
        """See `Watch`."""
        self._before += done
        self._tally.done += done
        self._show()

    def waited(self, oldest_s: float) -> None:
        """See `Watch`."""
        self._shares = self._ask()
        self._show()

    def worked(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        if task.kind == FIT and result["status"] != "failed":
            self._fitted |= {str(task.row["uid"])} - self._again

    def finished(self, uid: str, reason: str, work: Work) -> None:
        """See `Watch`."""
        self._fitted.discard(uid)
        self._again.discard(uid)
        self._shares = {other: share for other, share in self._shares.items() if other != uid}
        # an object whose atlas was damaged ends a second time
        self._tally.done = min(self._tally.done + 1, self._tally.total)
        if reason:
            self._tally.reasons[reason] += 1
        else:
            self._tally.add(work.gaussians, work.psnr)
        self._show()

    def retried(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        if task.kind == FIT and result["reason"] == DAMAGED:
            self._again.add(str(task.row["uid"]))
        attempt = task.history.attempts + 1
        with self._bar.above():
            log.warning("%s failed (%s: %s), attempt %d follows", task.name, *_why(result), attempt)

    def held(self, task: Task, result: Facts) -> None:
        """See `Watch`."""
        with self._bar.above():
            log.warning(
                "%s gave up (%s: %s); its quarantine waits for the rest of its shard", task.name, *_why(result)
            )

    def _show(self) -> None:
        shares = [share for uid, share in self._shares.items() if uid not in self._fitted]
        position = self._tally.done + FIT_SHARE * (len(self._fitted) + sum(shares))
        gained = position - self._before
        self._bar.show(position, self._tally.text(position, gained, self._clock() - self._started))


def _why(result: Facts) -> tuple[str, str]:
    return str(result["reason"]), text_of(result)
