"""Points on the unit sphere, to which Gaussians are assigned."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError


def sphere_of(config: AtlasConfig) -> npt.NDArray[np.float64]:
    """Sphere points of a configuration [size^2, 3], in the order that plane indices refer to."""
    return ring_sphere(config.size) if config.layout == "ring" else fibonacci_sphere(config.size**2)


def fibonacci_sphere(n: int) -> npt.NDArray[np.float64]:
    """Fibonacci lattice of n points about the y axis, sorted by x, then y, then z (paper section 4).

    `y_i = -1 + 2 i / (n - 1)`, and the longitude grows by the golden angle from point to point. The sort is
    part of the definition: plane indices refer to sorted points.

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


def ring_sphere(size: int) -> npt.NDArray[np.float64]:
    """Sphere of bands of equal area about z, divided into equal longitudes, so that its unrolling is the grid.

    Point `row * size + column` is the centre of its patch: longitude -180 + 360 (row + 1/2) / size degrees,
    sine of latitude 1 - 2 (column + 1/2) / size. The plane indices are therefore 0, 1, 2, ...

    Args:
        size: number of bands, and of points in each, at least 1.

    Returns:
        float64 [size^2, 3] of norm 1.

    Raises:
        AtlasError: size < 1.
    """
    if size < 1:
        raise AtlasError(f"a ring sphere needs at least 1 band, got size = {size}")
    steps = (np.arange(size) + 0.5) / size
    longitude, z = np.meshgrid(math.pi * (2.0 * steps - 1.0), 1.0 - 2.0 * steps, indexing="ij")
    radius = np.sqrt(1.0 - z * z)
    points = np.stack([radius * np.cos(longitude), radius * np.sin(longitude), z], axis=-1)
    return points.reshape(-1, 3)
