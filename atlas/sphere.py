"""The points of the unit sphere to which Gaussians are offset."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError


def fibonacci_sphere(n: int) -> npt.NDArray[np.float64]:
    """The Fibonacci lattice of n points about the y axis, sorted by x, then y, then z (paper section 4).

    `y_i = -1 + 2 i / (n - 1)` and the longitude turns by the golden angle from one point to the next. The
    sort is part of the definition: plane indices refer to sorted points.

    Args:
        n: number of points, at least 2.

    Returns:
        float64 [n, 3] of norm 1.

    Raises:
        AtlasError: n < 2.
    """
    if n < 2:
        raise AtlasError(f"a Fibonacci sphere needs at least 2 points, got n = {n}")
    i = np.arange(n)
    y = -1.0 + 2.0 * i / (n - 1)
    radius = np.sqrt(np.maximum(0.0, 1.0 - y * y))
    longitude = i * (math.pi * (3.0 - math.sqrt(5.0)))
    points = np.stack([radius * np.cos(longitude), y, radius * np.sin(longitude)], axis=1)
    # numpy sorts by the last key first
    return points[np.lexsort((points[:, 2], points[:, 1], points[:, 0]))]
