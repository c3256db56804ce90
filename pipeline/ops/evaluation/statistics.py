"""Statistics over objects: moments, quartiles, bootstrap intervals of means, rank correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
"""Bootstrap: number of resamples, seed of their random numbers, and the share of means inside the interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Distribution of one number over objects; all are NaN but `n` where no object has it.

    Attributes:
        n: objects that have the number.
        mean: its mean.
        std: its sample standard deviation (n - 1); 0 for one object.
        min, q25, median, q75, max: the quartiles, with linear interpolation.
        low, high: ends of the bootstrap interval of the mean, see `interval`.
    """

    n: int
    mean: float
    std: float
    min: float
    q25: float
    median: float
    q75: float
    max: float
    low: float
    high: float


def spread_of(values: Floats) -> Spread:
    """The distribution of `values`, of which NaN means that an object lacks the number."""
    known = values[~np.isnan(values)]
    n = len(known)
    if not n:
        return Spread(0, *[float("nan")] * 9)
    least, q25, median, q75, most = (float(q) for q in np.quantile(known, (0, 0.25, 0.5, 0.75, 1)))
    std = float(known.std(ddof=1)) if n > 1 else 0.0
    return Spread(n, float(known.mean()), std, least, q25, median, q75, most, *interval(known))


def interval(values: Floats) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over objects (Efron 1979).

    `RESAMPLES` samples of n objects are drawn with replacement, by PCG64 with `SEED`; the ends are the quantiles
    (1 - `LEVEL`) / 2 and (1 + `LEVEL`) / 2 of their means. It says how the mean would vary with other objects of the
    same kind, and nothing about seeds of a fit.

    Args:
        values: finite, [n], n >= 1.
    """
    rng = np.random.default_rng(SEED)
    n = len(values)
    # about the mean, so that a constant stays one to the last digit
    centre = float(values.mean())
    apart = values - centre
    means = np.array([apart[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return centre + float(low), centre + float(high)


def rank_correlation(one: Floats, other: Floats) -> tuple[float, int]:
    """Spearman's rank correlation, ties sharing their mean rank, over the objects that have both numbers.

    Returns:
        The correlation, NaN for fewer than three objects or a constant; and the number of objects.
    """
    known = ~np.isnan(one) & ~np.isnan(other)
    n = int(known.sum())
    if n < 3 or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return float("nan"), n
    return float(spearmanr(one[known], other[known]).statistic), n


def share_at_bound(counts: NDArray[np.int64], bound: int) -> float:
    """Share of objects whose number of Gaussians is within 1 % of the bound; NaN without objects.

    A fit that was at its bound ends a little below it: Gaussians that became invisible are dropped at the end.
    """
    return float((counts >= 0.99 * bound).mean()) if len(counts) else float("nan")
