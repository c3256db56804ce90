"""Events of a run while it works, and counts and times of one call."""

from __future__ import annotations

from dataclasses import dataclass

from gaussianverse.pipeline.run.executor import Task


class Watch:
    """Receives the events of a run, for a progress bar or a log; by itself it ignores them."""

    def opened(self, done: int) -> None:
        """A shard was opened; `done` of its objects are already complete."""

    def finished(self, uid: str, quarantined: bool) -> None:
        """An object was completed or quarantined."""

    def retried(self, task: Task, reason: str, text: str) -> None:
        """A task failed and will be tried again."""

    def held(self, task: Task, reason: str, text: str) -> None:
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
