"""Events of a run while it works, and counts and times of one call."""

from __future__ import annotations

from dataclasses import dataclass

from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.run.executor import TAKEN, Task


@dataclass(frozen=True)
class Work:
    """The tasks of one object that ended in this call, and what came of them."""

    shard: int
    seconds: float = 0.0
    """Of all of its tasks, failed ones included."""
    node: str = ""
    """Host of the last task; "" if the task was ended from outside."""
    gaussians: int = 0
    """Gaussians of its fit; 0 without an atlas."""
    psnr: float = -1.0
    """Held-out PSNR of its atlas in dB; -1 if it is not known."""
    taken: bool = False
    """Its Gaussians were taken over, from another shard or output, and not fitted."""

    def after(self, result: Facts) -> Work:
        """The work with one more task that ended."""
        return Work(
            self.shard,
            self.seconds + float(result.get("seconds", 0.0)),
            str(result.get("node", "")),
            int(result.get("gaussians", self.gaussians)),
            float(result.get("psnr", self.psnr)),
            bool(result.get(TAKEN, self.taken)),
        )


class Watch:
    """Receives the events of a run, for a progress bar or a log; by itself it ignores them.

    A result is what `Executor.result` returned; those of tasks that came to their end have `seconds` and `node`.
    """

    def opened(self, done: int) -> None:
        """A shard was opened; `done` of its objects are already complete."""

    def waited(self, oldest_s: float) -> None:
        """Tasks are under way, the oldest for so many seconds; said at most twice a second."""

    def worked(self, task: Task, result: Facts) -> None:
        """A task ended, well or not."""

    def finished(self, uid: str, reason: str, work: Work) -> None:
        """An object was completed, or quarantined for a reason; "" if it was completed."""

    def retried(self, task: Task, result: Facts) -> None:
        """A task failed and will be tried again."""

    def held(self, task: Task, result: Facts) -> None:
        """A task failed for good, for a reason that could come from outside; its object is not yet quarantined."""


@dataclass
class Summary:
    """Counts and times of one call."""

    shards: int = 0
    objects: int = 0
    quarantined: int = 0
    retries: int = 0
    held: int = 0
    """Objects that failed for reasons that could come from outside and, when the call ended, were not quarantined."""
    repeats: int = 0
    """Tasks started a second time at the end of the run."""
    fit_seconds: float = 0.0
    """Seconds of fits whose fragment was published."""
    slot_seconds: float = 0.0
    """Slots times wall time."""
