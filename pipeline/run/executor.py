"""Tasks, and the interface of what runs them. A failed task gives a dict, as a finished one does; nothing raises."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import History

FIT, ATLAS, PACK = "fit", "atlas", "pack"


@dataclass(frozen=True)
class Job:
    """What every task of a run needs; small, since it travels with each of them."""

    url: str
    """Of the output."""
    base: str = ""
    """Folder or s3 prefix that relative `views` are relative to."""
    fit_deadline_s: float = 3600.0
    store: StoreOptions = field(default_factory=StoreOptions)


@dataclass(frozen=True)
class Task:
    """One unit of work and how often it has failed so far."""

    kind: str
    stage: str
    shard: int
    row: Facts = field(default_factory=dict)
    history: History = field(default_factory=History)

    @property
    def name(self) -> str:
        """For messages."""
        return (
            f"{self.kind} of {self.row['uid']}" if self.row else f"{self.kind} of {self.stage} {self.shard}"
        )


class Executor(Protocol):
    """Runs tasks somewhere."""

    def slots(self) -> int:
        """How many tasks can run at once, now."""

    def submit(self, task: Task) -> Hashable:
        """Start it as soon as there is a slot."""

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        """Those that have ended, as soon as one has or the time is over."""

    def result(self, handle: Hashable) -> Facts:
        """What an ended task returned, or what befell it in the same form."""

    def cancel(self, handle: Hashable) -> None:
        """End it by force; it then counts as ended."""
