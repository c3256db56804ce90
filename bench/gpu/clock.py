"""Time that is left: to the whole benchmark, and to a section of it."""

from __future__ import annotations

import time


class Clock:
    """A budget in seconds that begins when it is made, and that may end earlier with another's."""

    def __init__(self, seconds: float, within: Clock | None = None) -> None:
        self._start = time.monotonic()
        self._end = self._start + (min(seconds, within.left()) if within else seconds)

    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._start
