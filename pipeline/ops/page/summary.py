"""Head of the page: counts, histograms and frequent words, over all objects, added one at a time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gaussianverse.pipeline.ops.page.objects import METRICS, NUMBERS, Entry
from gaussianverse.pipeline.ops.page.spread import Spread

FEWEST_BINS, MOST_BINS = 8, 40
"""Of a histogram; between them twice the square root of the number of objects."""
MOST_ROWS = 20
"""Categories, words and licences that the page names."""
MOST_NAMES = 20_000
"""Of each kind that are counted; beyond twice as many, the rarest so far are forgotten."""
_WORD = re.compile(r"[^\W\d_]{3,}")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "the and with for from that this its has are was his her their into onto over under have been which where "
        "while who whose there them they than then also can one two three very each both other",
    )
)
_FORM = {"n_gaussians": ",.0f", "ssim": ".4f", "smoothness": ".3f", "complexity": ".3f", "seconds": ",.1f"}


@dataclass(frozen=True)
class Histogram:
    """A histogram as a template draws it: lengths are shares of the picture."""

    name: str
    title: str
    n: int
    bins: int
    bars: list[tuple[int, float]]
    """Place among the bins and height, 0 to 1, of the bars that are not empty."""
    most: int
    """Objects in the highest bar."""
    low: str
    high: str
    quartiles: list[tuple[str, float, str]]
    """Name, place (0 to 1) and value of the 25, 50 and 75 % lines."""


@dataclass
class _Sums:
    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.n, self.total, self.squares = self.n + 1, self.total + value, self.squares + value * value

    def text(self, form: str) -> str:
        if not self.n:
            return "-"
        mean = self.total / self.n
        if self.n == 1:
            return f"{mean:{form}}"
        spread = (max(0.0, self.squares - self.n * mean * mean) / (self.n - 1)) ** 0.5
        return f"{mean:{form}} ± {spread:{form}}"


@dataclass
class Summary:
    """Counts and numbers over the objects, in memory that does not grow with them."""

    objects: int = 0
    published: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    measured_on: set[str] = field(default_factory=set)
    _spreads: dict[str, Spread] = field(default_factory=lambda: {name: Spread() for name in METRICS})
    _categories: dict[str, dict[str, _Sums]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Count an object."""
        self.objects += 1
        if not entry.ok:
            self.reasons[entry.value("reason")] += 1
            _forget(self.reasons)
            return
        self.published += 1
        self.licences[entry.value("license") or "not stated"] += 1
        self.words.update({word for word in _WORD.findall(entry.value("caption").lower()) if word not in _STOP})
        if entry.value("psnr") is not None:
            self.measured_on.add(str(entry.fit["metrics_on"]))
        category = self._categories.setdefault(entry.value("category") or "not stated", {})
        for name in METRICS:
            if (value := entry.value(name)) is not None:
                self._spreads[name].add(value)
                category.setdefault(name, _Sums()).add(value)
        _forget(self.licences)
        _forget(self.words)
        if len(self._categories) > 2 * MOST_NAMES:
            ordered = sorted(self._categories.items(), key=lambda one: -_most(one[1]))
            self._categories = dict(ordered[:MOST_NAMES])

    @property
    def views(self) -> str:
        """The views that quality is measured on, "" if it is of none."""
        if not self.measured_on:
            return ""
        return "held-out" if self.measured_on == {"heldout"} else "training"

    def histograms(self) -> list[Histogram]:
        """One of each metric that some object has."""
        return [_histogram(name, spread) for name, spread in self._spreads.items() if spread.n]

    def medians(self) -> dict[str, str]:
        """The median of each metric, as text."""
        return {name: shown(name, spread.quantile(0.5)) for name, spread in self._spreads.items() if spread.n}

    def categories(self) -> list[tuple[str, int, list[str]]]:
        """Name, number of objects, and mean and standard deviation of each metric, the largest first."""
        rows = []
        for name, sums in self._categories.items():
            texts = [sums.get(metric, _Sums()).text(_FORM.get(metric, ".2f")) for metric in METRICS]
            rows.append((name, _most(sums), texts))
        return sorted(rows, key=lambda row: (-row[1], row[0]))[:MOST_ROWS]


def _most(sums: dict[str, _Sums]) -> int:
    """Objects of a category: those of the metric that most of them have."""
    return max((s.n for s in sums.values()), default=0)


def _forget(counts: Counter[str]) -> None:
    """Forget the rarest names once there are too many."""
    if len(counts) > 2 * MOST_NAMES:
        kept = counts.most_common(MOST_NAMES)
        counts.clear()
        counts.update(dict(kept))


def shown(name: str, value: Any) -> str:
    """A number of one of `NUMBERS` as text, "-" for None."""
    return "-" if value is None else f"{value:{_FORM.get(name, '.2f')}}"


def _histogram(name: str, spread: Spread) -> Histogram:
    values, weights = spread.weights()
    low, high = spread.low, spread.high
    if low == high:  # one bar in the middle
        room = abs(low) * 0.01 or 1.0
        low, high = low - room, high + room
    bins = min(MOST_BINS, max(FEWEST_BINS, round(2 * spread.n**0.5)))
    counts, _ = np.histogram(values, bins=bins, range=(low, high), weights=weights)
    quartiles = [
        (f"{share:.0%}", (at - low) / (high - low), shown(name, at))
        for share, at in ((q, spread.quantile(q)) for q in (0.25, 0.5, 0.75))
    ]
    bars = [(k, float(count / counts.max())) for k, count in enumerate(counts) if count]
    return Histogram(
        name, NUMBERS[name], spread.n, bins, bars, int(counts.max()), shown(name, low), shown(name, high), quartiles
    )
