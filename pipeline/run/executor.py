"""Tasks, and the interface of their executors. A failed task returns a dict like a finished one; no task raises."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import History

FIT, ATLAS, PACK = "fit", "atlas", "pack"
TAKEN = "taken"
"""Key of a task's result: the Gaussians were taken over, from another shard or output, and not fitted."""


@dataclass(frozen=True)
class Job:
    """Settings that every task of a run needs; small, since they are sent with each task."""

    url: str
    """Address of the output."""
    base: str = ""
    """Folder or s3 prefix that relative `views` are relative to."""
    fit_deadline_s: float = 3600.0
    store: StoreOptions = field(default_factory=StoreOptions)
    number: int = 1
    """Version whose shards are made."""
    scratch: str = ""
    """Folder on each machine for views that are fetched, see `scratch.base_of`."""


@dataclass(frozen=True)
class Task:
    """One unit of work, with the failures of its earlier attempts."""

    kind: str
    stage: str
    shard: int
    row: Facts = field(default_factory=dict)
    history: History = field(default_factory=History)
    alone: bool = False
    """Nothing else may run on its node."""
    near: str = ""
    """Node that its views were fetched to; "" = any. It runs on another where that one is gone."""

    @property
    def name(self) -> str:
        """Name for messages, such as "fit of UID"."""
        return f"{self.kind} of {self.row['uid']}" if self.row else f"{self.kind} of {self.stage} {self.shard}"


class Executor(Protocol):
    """Runs tasks on one machine or a cluster."""

    def slots(self) -> int:
        """Number of tasks that can run at once, now."""

    def submit(self, task: Task) -> Hashable:
        """Start a task as soon as there is a slot; returns its handle."""

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        """Wait for a task to end, at most `timeout_s`; returns the handles of those that have."""

    def result(self, handle: Hashable) -> Facts:
        """Result of a finished task; failures are returned as a dict as well."""

    def cancel(self, handle: Hashable) -> None:
        """End a task by force; it then counts as ended."""
