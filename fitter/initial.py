"""Where anchors start: there are no points from structure-from-motion, but there are silhouettes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fitter.errors import BadInput, TooFewGaussians
from fitter.views import Views

Points = NDArray[np.float64]

_COARSE, _FINE = 48, 96
_OPAQUE = 0.5
_NEAR = 1e-3


def camera_extent(views: Views) -> float:
    """1.1 times the largest distance of a camera from the cameras' centroid (3DGS's scene extent); > 0."""
    centers = views.c2w[:, :3, 3]
    extent = 1.1 * float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    # a single camera has no extent; its distance to the origin is the only scale there is
    return extent if extent > 1e-6 else max(1e-3, float(np.linalg.norm(centers[0])))


def focus_box(views: Views) -> tuple[Points, Points]:
    """Corners of the cube in view: about the point nearest to all optical axes, as wide as the widest image.

    Where the axes are parallel or meet behind the cameras, the cube lies ahead of them at their own extent.
    """
    centers, axes = views.c2w[:, :3, 3], views.c2w[:, :3, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # a little weight on the cameras' centroid's own distance keeps parallel axes solvable
    system = across.sum(0) + 1e-9 * np.eye(3)
    focus = np.linalg.solve(system, (across @ centers[:, :, None]).sum(0)[:, 0] + 1e-9 * centers.mean(0))
    distance = ((focus - centers) * axes).sum(1)
    if np.linalg.cond(system) > 1e6 or np.median(distance) <= _NEAR:
        reach = camera_extent(views)
        focus, distance = (centers + reach * axes).mean(0), np.full(len(views), reach)
    half_fov = 0.5 * max(views.width, views.height) / np.minimum(views.Ks[:, 0, 0], views.Ks[:, 1, 1])
    half = float(np.median(np.abs(distance)) * half_fov.max()) * 1.05
    return focus - half, focus + half


def _grid(low: Points, high: Points, n: int) -> Points:
    axes = [low[k] + (np.arange(n) + 0.5) / n * (high[k] - low[k]) for k in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def inside_hull(points: Points, views: Views) -> NDArray[np.bool_]:
    """Which of the points [P, 3] lie inside the visual hull.

    A point outside a view's image, or behind its camera, is not judged by that view; one that fewer than two
    views judge (of two or more) is outside.
    """
    height, width = views.height, views.width
    judges = np.zeros(len(points), np.intp)
    inside = np.ones(len(points), bool)
    for alpha, viewmat, K in zip(views.images[..., 3], views.viewmats, views.Ks, strict=True):
        rows = np.flatnonzero(inside)
        camera = points[rows] @ viewmat[:3, :3].T + viewmat[:3, 3]
        ahead = camera[:, 2] > _NEAR
        z = np.where(ahead, camera[:, 2], 1.0)
        x = K[0, 0] * camera[:, 0] / z + K[0, 2]
        y = K[1, 1] * camera[:, 1] / z + K[1, 2]
        judged = ahead & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rows, x, y = rows[judged], x[judged].astype(np.intp), y[judged].astype(np.intp)
        judges[rows] += 1
        inside[rows[alpha[y, x] < 255 * _OPAQUE]] = False
    return inside & (judges >= min(2, len(views)))


def hull_points(views: Views, count: int, rng: np.random.Generator) -> Points:
    """`count` random points [count, 3] just inside the surface of the visual hull.

    The hull is carved on a coarse grid over `focus_box`, then on a fine one over what was found; the points are
    jittered within cells that are inside and have a neighbour that is not.

    Raises:
        TooFewGaussians: the hull is empty.
    """
    low, high = focus_box(views)
    for n in (_COARSE, _FINE):
        cell = (high - low) / n
        occupied = inside_hull(_grid(low, high, n), views).reshape(n, n, n)
        found = np.argwhere(occupied)
        if not len(found):
            raise TooFewGaussians(
                f"the silhouettes of {len(views)} views have no point in common (box {low.round(3).tolist()} to "
                f"{high.round(3).tolist()}): the alpha is empty or the poses are wrong; look at the images, or "
                "fit with init = 'random'"
            )
        box = low, high
        low, high = box[0] + (found.min(0) - 1) * cell, box[0] + (found.max(0) + 2) * cell
    padded = np.pad(occupied, 1)
    core = occupied.copy()
    for axis in range(3):
        for step in (-1, 1):
            core &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    surface = np.argwhere(occupied & ~core)
    chosen = surface[rng.integers(len(surface), size=count)]
    points: Points = box[0] + (chosen + rng.random((count, 3))) * cell
    return points


def depth_points(views: Views, count: int, rng: np.random.Generator) -> Points:
    """`count` random points [count, 3] of the views' depth maps, where alpha is opaque.

    Raises:
        BadInput: the views carry no depth.
        TooFewGaussians: no opaque pixel has a depth.
    """
    if views.depths is None:
        raise BadInput(
            "init = 'depth' needs depth maps (`_nd.exr`) and the views have none; use init = 'hull'"
        )
    usable = (views.images[..., 3] >= 255 * _OPAQUE) & np.isfinite(views.depths) & (views.depths > _NEAR)
    pixels = np.argwhere(usable)
    if not len(pixels):
        raise TooFewGaussians("no opaque pixel of the views has a depth; use init = 'hull'")
    v, y, x = pixels[rng.integers(len(pixels), size=count)].T
    z, K = views.depths[v, y, x].astype(np.float64), views.Ks[v]
    camera = np.stack(
        [
            (x + rng.random(count) - K[:, 0, 2]) / K[:, 0, 0] * z,
            (y + rng.random(count) - K[:, 1, 2]) / K[:, 1, 1] * z,
            z,
        ],
        -1,
    )
    points: Points = (views.c2w[v, :3, :3] @ camera[..., None])[..., 0] + views.c2w[v, :3, 3]
    return points


def random_points(views: Views, count: int, rng: np.random.Generator) -> Points:
    """`count` points [count, 3] uniform in `focus_box`: the paper's words, taken literally."""
    low, high = focus_box(views)
    points: Points = low + rng.random((count, 3)) * (high - low)
    return points


INITIAL = {"hull": hull_points, "depth": depth_points, "random": random_points}


def neighbour_distance(points: Points) -> Points:
    """Mean distance [P] of each point to its three nearest others, at least 1e-6."""
    if len(points) == 1:
        return np.array([1e-2])
    k = min(4, len(points))
    distances, _ = cKDTree(points).query(points, k=k)
    mean: Points = np.maximum(distances[:, 1:].mean(1), 1e-6)
    return mean
