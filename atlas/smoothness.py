"""Neighbour smoothness: how much of the closeness in space an atlas keeps between neighbouring cells.

A permutation that is applied the wrong way round gives an atlas that unpacks without a fault and cannot be
learned from. Neighbours tell right from wrong in milliseconds:

    smoothness = (D_random - D_grid) / (D_random - D_space)

D_grid is the mean distance between a live cell and its nearest live cells in the grid, D_random that between
random pairs, D_space that between each Gaussian and its nearest neighbours in space. 1: cells are as close as
the object allows; 0: the order is random.

How smooth a right atlas can be depends on the object: a solid ball does not unroll without loss. So the number
describes an atlas; its order is judged by the smoothness of the sphere points that stand behind the cells,
`unrolled`, which is the same for every object, and by the cost of the offsets to them (`atlas.gates`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from gaussianverse.atlas.gaussians import Gaussians

_NEIGHBOURS = 4

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Smoothness:
    """Smoothness of the positions, and of albedo, opacity and scale together; each at most 1."""

    position: float
    appearance: float


def smoothness(gaussians: Gaussians, cells: npt.NDArray[np.integer]) -> Smoothness:
    """Measure an atlas's smoothness from what it unpacks to.

    Neighbours in the grid are the four nearest live cells: the four adjacent ones where the atlas is full, and
    still neighbours where it is mostly padding.

    Args:
        gaussians: the live Gaussians, M of them.
        cells: row and column of each, [M, 2].

    Returns:
        NaN for M < 6: too few for neighbours to differ from random pairs.
    """
    count = len(gaussians)
    if count < _NEIGHBOURS + 2:
        return Smoothness(float("nan"), float("nan"))
    means = gaussians.means.astype(np.float64)
    looks = np.hstack([gaussians.colors, gaussians.opacities[:, None], gaussians.scales]).astype(np.float64)
    in_grid = _neighbours(cells.astype(np.float64))
    in_space = _neighbours(means)
    order = np.random.default_rng(0).permutation(count)
    at_random = np.empty((count, 1), np.int64)
    at_random[order, 0] = np.roll(order, 1)

    def recovered(features: Floats) -> float:
        random, space = _mean_distance(features, at_random), _mean_distance(features, in_space)
        grid = _mean_distance(features, in_grid)
        # nothing varies, or nothing varies smoothly even in space: no order is better than another
        return (random - grid) / (random - space) if random > space else 1.0

    # looks have units of their own, positions have one
    spread = looks.std(axis=0)
    return Smoothness(recovered(means), recovered(looks[:, spread > 0] / spread[spread > 0]))


def unrolled(points: npt.NDArray[np.floating]) -> float:
    """Smoothness of the sphere itself: how much of the closeness of its points neighbouring cells keep.

    Args:
        points: the sphere point that each cell stands for, [size, size, 3].

    Returns:
        About 1 where the sphere is unrolled onto the grid, about 0 where its points lie at random.
    """
    flat = points.reshape(-1, 3).astype(np.float64)
    order = np.random.default_rng(0).permutation(len(flat))
    random = float(np.linalg.norm(flat[order] - flat[np.roll(order, 1)], axis=1).mean())
    space = _mean_distance(flat, _neighbours(flat))
    steps = [np.linalg.norm(np.diff(points, axis=axis), axis=2).ravel() for axis in (0, 1)]
    return (random - float(np.concatenate(steps).mean())) / (random - space)


def _neighbours(points: Floats) -> Ints:
    """The four nearest other points of each, [M, 4]."""
    _, found = cKDTree(points).query(points, k=_NEIGHBOURS + 1)
    # of coinciding points any may come first; the one that is left out must be the point itself where it is there
    own = found == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(points), _NEIGHBOURS), dtype=np.int64)


def _mean_distance(features: Floats, partners: Ints) -> float:
    return float(np.linalg.norm(features[:, None, :] - features[partners], axis=2).mean())
