"""Which object follows which: its views are fetched where the one before it is fitted, and it is fitted there next.

A cluster's scheduler alone does not know where an object will be fitted until its turn comes, and then it is too late
to fetch anything. So the driver keeps each follower back until the fit that it follows has ended, and then asks for
the same node.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from gaussianverse.atlas.store import is_s3
from gaussianverse.fitter.views import FORMATS
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.run.executor import FIT, Task
from gaussianverse.pipeline.run.inputs import resolve

NEXT = "_next"
"""Key in the row of a task: format and address, as the manifest has them, of views to fetch meanwhile; two lines."""
PLACE = "place"
"""Key in the result of a fit: the node that it ran on."""
_MOST_BYTES = 600
"""Longest address, since it travels with a task."""


class Following:
    """Followers of the fits under way.

    Args:
        base: folder or prefix that relative `views` are relative to.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._kept: dict[tuple[int, str], Task] = {}  # by the fit that they follow, the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def choose(self, task: Task, ready: deque[Task]) -> str:
        """Take the next fit whose views are to be fetched out of `ready`, to follow `task`; the text for its `NEXT`.

        "" if there is none. A fit that failed before is followed by none, since it may fail again at once.
        """
        if task.alone or task.history.attempts or _key(task) in self._kept or not self._fetches(task):
            return ""
        for k, other in enumerate(ready):
            if other.kind == FIT and not (other.alone or other.near) and self._fetches(other):
                del ready[k]
                self._kept[_key(task)] = other
                return f"{other.row['format']}\n{other.row['views']}"
        return ""

    def ended(self, task: Task, result: Facts) -> Task | None:
        """The follower of a fit that has ended, now to be fitted on the same node."""
        found = self._kept.pop(_key(task), None) if task.kind == FIT else None
        return None if found is None else replace(found, near=str(result.get(PLACE, "")))

    def oldest(self) -> Task:
        """The follower that has waited longest, which there is a slot for before its turn."""
        return self._kept.pop(next(iter(self._kept)))

    def _fetches(self, task: Task) -> bool:
        """Whether a fit reads views that lie in a store."""
        row = task.row
        address = resolve(str(row["views"]), self._base)
        return (
            is_s3(address)
            and row["format"] in FORMATS
            and row.get(ORIGIN, -1) < 0
            and not row.get("fault")
            and len(address) <= _MOST_BYTES
        )


def _key(task: Task) -> tuple[int, str]:
    return task.shard, str(task.row["uid"])
