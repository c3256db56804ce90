"""Smoothness of an atlas: whether neighbouring cells hold Gaussians that are close in space.

A permutation that is applied inverted gives an atlas that unpacks without an error and is useless for training.
The distance between neighbours detects it in milliseconds:

    smoothness = (D_random - D_grid) / (D_random - D_space)

D_grid is the mean distance between a live cell and its nearest live cells in the grid, D_random between random
pairs, D_space between each Gaussian and its nearest neighbours in space. At 1, neighbouring cells are as close
as the object allows; at 0, the order is random.

The best possible smoothness depends on the object: a solid ball, for instance, cannot be unrolled without loss.
So this number describes an atlas. Its order is checked by two numbers that do not depend on the object: the
smoothness of the sphere points of the cells, `unrolled`, and the cost of the offsets to them (`atlas.gates`).
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
    """Smoothness of position, and of appearance (albedo, opacity and scale together); each at most 1."""

    position: float
    appearance: float


def smoothness(gaussians: Gaussians, cells: npt.NDArray[np.integer]) -> Smoothness:
    """Measure the smoothness of an unpacked atlas.

    Neighbours in the grid are the four nearest live cells: the four adjacent ones where the atlas is full, and
    farther ones where it is mostly padding.

    Args:
        gaussians: the M live Gaussians.
        cells: row and column of each, [M, 2].

    Returns:
        The smoothness; NaN for M < 6, when neighbours hardly differ from random pairs.
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
        # nothing varies, or not smoothly even in space: every order is equally good
        return (random - grid) / (random - space) if random > space else 1.0

    # appearance mixes units, so each of its columns is scaled; positions share one unit
    spread = looks.std(axis=0)
    return Smoothness(recovered(means), recovered(looks[:, spread > 0] / spread[spread > 0]))


def unrolled(points: npt.NDArray[np.floating]) -> float:
    """Smoothness of the sphere points of the cells.

    Args:
        points: sphere point of each cell, [size, size, 3].

    Returns:
        About 1 if the grid unrolls the sphere, about 0 if its points are in random order.
    """
    flat = points.reshape(-1, 3).astype(np.float64)
    order = np.random.default_rng(0).permutation(len(flat))
    random = float(np.linalg.norm(flat[order] - flat[np.roll(order, 1)], axis=1).mean())
    space = _mean_distance(flat, _neighbours(flat))
    steps = [np.linalg.norm(np.diff(points, axis=axis), axis=2).ravel() for axis in (0, 1)]
    return (random - float(np.concatenate(steps).mean())) / (random - space)


def _neighbours(points: Floats) -> Ints:
    """Four nearest other points of each point, [M, 4]."""
    _, found = cKDTree(points).query(points, k=_NEIGHBOURS + 1)
    # coinciding points are found in any order, so drop the point itself if it is there, else the farthest
    own = found == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(points), _NEIGHBOURS), dtype=np.int64)


def _mean_distance(features: Floats, partners: Ints) -> float:
    return float(np.linalg.norm(features[:, None, :] - features[partners], axis=2).mean())
