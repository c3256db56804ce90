"""Views that lie beside an object's, by which a task tells an object that is missing from a share that is gone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

BESIDE = "_beside"
"""Key in the row of a task: addresses, one a line, as the manifest has them, the nearest first."""
ALONE = "_alone"
"""Key in the row of a task that has its node for itself."""
_MOST_BYTES = 600
"""Limit of all addresses together, since they travel with each task."""


class Neighbours:
    """Addresses of the views of a shard, in their own order: those that share the longest path stand together."""

    def __init__(self, views: Iterable[str]) -> None:
        self._sorted = sorted(set(views))

    def beside(self, views: str, others: Iterable[str] = ()) -> str:
        """Up to four addresses beside `views`: its neighbours of the shard, and some of `others`; one a line."""
        at = bisect_left(self._sorted, views)
        after = at + (self._sorted[at : at + 1] == [views])
        near = [*self._sorted[max(0, at - 1) : at], *self._sorted[after : after + 1], *others]
        found = list(dict.fromkeys(other for other in near if other != views))[:4]
        while found and sum(map(len, found)) > _MOST_BYTES:
            found.pop()
        return "\n".join(found)
