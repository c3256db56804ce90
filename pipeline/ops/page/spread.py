"""`Spread`: the distribution of numbers that come one at a time, in memory that does not grow with them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter

import numpy as np
import numpy.typing as npt

MOST = 4096
"""Places at which numbers are counted; each number has its own up to so many different ones."""
_FINEST = 60
"""Bits below the largest number where bins begin; doubles have 53."""


class Spread:
    """Counts numbers by value, and by bins of width 2**k once there are too many values.

    k is the least for which at most `MOST` bins have numbers, so the order in which they come makes no difference,
    and a few far away cost no precision among the others.
    """

    def __init__(self) -> None:
        self.n = 0
        self.low, self.high = math.inf, -math.inf
        self._counts: Counter[float] = Counter()
        self._k: int | None = None

    def add(self, value: float) -> None:
        """Count a finite number."""
        self.n += 1
        self.low, self.high = min(self.low, value), max(self.high, value)
        self._counts[value if self._k is None else math.floor(math.ldexp(value, -self._k))] += 1
        if len(self._counts) > MOST:
            self._widen()

    @property
    def width(self) -> float:
        """Width of the bins, by which quantiles may be wrong; 0 while each number has its own."""
        return 0.0 if self._k is None else math.ldexp(1.0, self._k)

    def weights(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The numbers, ascending, or the middles of their bins, and how often each came."""
        places = sorted(self._counts)
        counts = np.array([self._counts[place] for place in places], np.int64)
        values = np.array(places, np.float64)
        if self._k is not None:
            values = np.clip((values + 0.5) * self.width, self.low, self.high)
        return values, counts

    def quantile(self, share: float) -> float:
        """The quantile, between two numbers where it falls between them, as NumPy's; some number must have come."""
        values, counts = self.weights()
        ends, place = np.cumsum(counts), share * (self.n - 1)
        ranks = math.floor(place), min(math.floor(place) + 1, self.n - 1)
        below, above = (float(values[np.searchsorted(ends, rank, "right")]) for rank in ranks)
        return below + (above - below) * (place - math.floor(place))

    def _widen(self) -> None:
        """Choose the narrowest bins of which at most `MOST` have numbers."""
        before, counts = self._k, self._counts
        largest = math.frexp(max(abs(self.low), abs(self.high)))[1]
        lowest = largest - _FINEST if before is None else before + 1

        def moved(place: float, k: int) -> int:
            return math.floor(math.ldexp(place, (before or 0) - k))

        widths = range(lowest, max(lowest, largest) + 2)
        enough = bisect_left(widths, True, key=lambda k: len({moved(place, k) for place in counts}) <= MOST)
        self._k, self._counts = widths[enough], Counter()
        for place, count in counts.items():
            self._counts[moved(place, self._k)] += count
