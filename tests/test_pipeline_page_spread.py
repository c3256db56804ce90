"""`Spread`, the distribution in bounded memory, against NumPy over all numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gaussianverse.pipeline.ops.page.spread import MOST, Spread

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def spread_of(values: np.ndarray) -> Spread:
    made = Spread()
    for value in values.tolist():
        made.add(value)
    return made


@pytest.mark.parametrize("n", [1, 2, 3, 10, MOST])
def test_few_numbers_are_kept_as_they_are(n: int) -> None:
    values = np.random.default_rng(n).normal(30, 5, n)
    made = spread_of(values)
    assert made.width == 0
    assert [made.quantile(q) for q in SHARES] == pytest.approx(np.quantile(values, SHARES), abs=1e-12)


DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(30, 5, n),
    "counts": lambda rng, n: np.rint(rng.lognormal(9, 0.7, n)),
    "one far away": lambda rng, n: np.r_[rng.uniform(0, 1, n), 1e12],
    "around zero": lambda rng, n: rng.normal(0, 1e-6, n),
    "of all sizes": lambda rng, n: np.exp(rng.uniform(-200, 200, n)) * rng.choice([-1, 1], n),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_of_many_numbers_are_right_to_the_width_of_a_bin(name: str) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(0), 30_000)
    made = spread_of(values)
    assert made.n == len(values)
    assert (made.low, made.high) == (values.min(), values.max())
    places, counts = made.weights()
    assert counts.sum() == made.n
    assert len(places) <= MOST
    assert np.abs(np.array([made.quantile(q) for q in SHARES]) - np.quantile(values, SHARES)).max() <= made.width
    if name != "of all sizes":  # there most are tiny beside the largest, and share a bin
        middle = np.quantile(values, 0.75) - np.quantile(values, 0.25)
        assert made.width < 0.01 * middle


def test_the_order_of_the_numbers_makes_no_difference() -> None:
    rng = np.random.default_rng(1)
    values = np.r_[rng.lognormal(9, 2, 20_000), -1.0, 0.0, 1e9]
    one, other, last = (spread_of(v) for v in (values, rng.permutation(values), np.sort(values)[::-1]))
    for made in (other, last):
        assert made.width == one.width > 0
        np.testing.assert_array_equal(made.weights(), one.weights())
