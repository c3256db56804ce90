"""Neighbour smoothness: how much of the closeness in space an atlas keeps between neighbouring cells.

A permutation that is applied the wrong way round gives an atlas that unpacks without a fault and cannot be
learned from. Neighbours tell right from wrong in milliseconds:

    smoothness = (D_random - D_grid) / (D_random - D_space)

D_grid is the mean distance between a live cell and its nearest live cells in the grid, D_random that between
random pairs, D_space that between each Gaussian and its nearest neighbours in space. 1: cells are as close as
the object allows; 0: the order is random.

How smooth a right atlas can be depends on the object: a solid ball does not unroll without loss. So the number
describes an atlas, but what judges its order is `unrolled`, the same ratio with the neighbours on the sphere
in place of those in space: the plane has to keep what the sphere has, whatever the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atlas.gaussians import Gaussians

_NEIGHBOURS = 4
# Positions closer than float32 holds them, relative to the largest coordinate: one place.
_ONE_PLACE = 1e-6

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


def unrolled(positions: npt.NDArray[np.floating], points: Floats) -> float:
    """The share of the closeness between neighbours on the sphere that neighbours in the grid keep.

    Every cell counts, padding too, so that the number means the same for any count of Gaussians.

    Args:
        positions: where the Gaussian of each cell is, [size, size, 3].
        points: the sphere point that each cell shows, [size, size, 3].

    Returns:
        About 1 for a right order, about 0 for a random one; 0 also where sphere neighbours are no closer than
        random pairs; 1 where all positions are one.
    """
    field = positions.astype(np.float64)
    flat = field.reshape(-1, 3)
    order = np.random.default_rng(0).permutation(len(flat))
    random = float(np.linalg.norm(flat[order] - flat[np.roll(order, 1)], axis=1).mean())
    if random <= _ONE_PLACE * max(1.0, float(np.abs(flat).max())):
        return 1.0
    steps = [np.linalg.norm(np.diff(field, axis=axis), axis=2).ravel() for axis in (0, 1)]
    grid = float(np.concatenate(steps).mean())
    sphere = _mean_distance(flat, _neighbours(points.reshape(-1, 3)))
    return (random - grid) / (random - sphere) if random > sphere else 0.0


def _neighbours(points: Floats) -> Ints:
    """The four nearest other points of each, [M, 4]."""
    _, found = cKDTree(points).query(points, k=_NEIGHBOURS + 1)
    # of coinciding points any may come first; the one that is left out must be the point itself where it is there
    own = found == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(points), _NEIGHBOURS), dtype=np.int64)


def _mean_distance(features: Floats, partners: Ints) -> float:
    return float(np.linalg.norm(features[:, None, :] - features[partners], axis=2).mean())
