"""The vectorised exponential and logarithm compared with NumPy's, over all ranges in use."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from gaussianverse.fitter.rasterize.compiled import OPTIONS, exp2, log2


@njit(**OPTIONS)
def every(function: int, values: np.ndarray, out: np.ndarray) -> None:
    for k in range(len(values)):
        out[k] = exp2(values[k]) if function == 0 else log2(values[k])


def computed(function: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = values.astype(np.float32)
    out = np.empty_like(values)
    every(function, values, out)
    return out.astype(np.float64), values.astype(np.float64)


def test_exp2() -> None:
    found, x = computed(0, np.concatenate([np.linspace(-126, 126, 200_001), np.linspace(-1, 1, 200_001)]))
    np.testing.assert_allclose(found, np.exp2(x), rtol=3e-7)


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.9, 1.1), (1e-37, 1e37)])
def test_log2(low: float, high: float) -> None:
    found, x = computed(1, np.geomspace(low, high, 200_001))
    expected = np.log2(x)
    assert (np.abs(found - expected) / (1 + np.abs(expected))).max() < 2e-7
    # also near 1, where the logarithm vanishes, in relative terms
    near = np.abs(x - 1) < 0.1
    np.testing.assert_allclose(found[near], expected[near], rtol=5e-7)
