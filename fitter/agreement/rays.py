"""Rays from the rims of silhouettes, and what all views show along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement import kernels
from gaussianverse.fitter.agreement.silhouettes import Silhouettes

RAYS = 1280
"""Rays of all views together."""
DEPTHS = 128
"""Samples along a ray."""
_FEWEST = 8  # rays of a view, however many views there are
_MARGIN = 1.5  # of the ball in view

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """R rays with D samples each, held against V views.

    Attributes:
        seen: uint8 [V, R, D], squared distance, in pixels, of a sample from a view's silhouette; 0 inside it,
            `kernels.UNSEEN` where the view says nothing.
        source: int64 [R], the view that a ray comes from.
        area: int64 [V], pixels of each silhouette.
        cut: whether silhouettes were cut at a threshold, so that views may lack thin parts that others show.
        thin: whether silhouettes are hardly wider than a few pixels.
    """

    seen: NDArray[np.uint8]
    source: NDArray[np.int64]
    area: NDArray[np.int64]
    cut: bool
    thin: bool


def look(views: Silhouettes, c2w: Array, K: Array, rays: int = RAYS, depths: int = DEPTHS) -> Evidence:
    """Follow rays from the rims of all silhouettes through the ball in view.

    Nothing depends on the world's unit or origin, and nothing is random.

    Args:
        views: silhouettes of V views.
        c2w: OpenCV camera-to-world, float64 [V, 4, 4].
        K: intrinsics in pixels of the images as they were before they were shrunk, float64 [V, 3, 3].
        rays: rays of all views together.
        depths: samples along a ray.
    """
    V = len(c2w)
    K = np.diag([*views.scale, 1.0]) @ K
    w2c = np.linalg.inv(_normalised(c2w, views.shown))
    c2w = np.linalg.inv(w2c)
    starts = [_some(np.flatnonzero(rim), max(_FEWEST, rays // V)) for rim in views.rim]
    source = np.repeat(np.arange(V), [len(pixels) if s else 0 for pixels, s in zip(starts, views.shown, strict=True)])
    area = np.count_nonzero(views.solid, axis=(1, 2))
    if not len(source):
        return Evidence(np.empty((V, 0, depths), np.uint8), source, area, False, False)
    y, x = np.divmod(np.concatenate([p for p, s in zip(starts, views.shown, strict=True) if s]), views.rim.shape[2])
    origins, directions = c2w[source, :3, 3], _directions(x + 0.5, y + 0.5, c2w[source], K[source])
    centre, radius = _ball(views, c2w, K)
    # an object that most views crop is larger than their frames
    wide = 2 if views.cropped[views.shown].mean() > 0.5 else 1
    radius, depths = radius * wide, depths * wide
    length = np.linalg.norm(directions, axis=1)
    middle = ((centre - origins) * directions).sum(1) / length**2
    near = np.maximum(middle - radius / length, 1e-3 * radius)
    step = (np.maximum(middle + radius / length, 2e-3 * radius) - near) / depths
    seen = np.full((V, len(source), depths), kernels.UNSEEN)
    judges = np.flatnonzero(views.shown)
    shift = np.array([[1.0, 0, kernels.MARGIN], [0, 1, kernels.MARGIN], [0, 0, 1]])
    projections = shift @ K @ w2c[:, :3]
    first = near + 0.5 * step
    kernels.follow(origins, directions, first, step, projections, judges, views.cropped, views.beyond, seen)
    return Evidence(seen, source, area, views.cut, views.thin)


def _normalised(c2w: Array, shown: NDArray[np.bool_]) -> Array:
    """Poses whose positions have mean 0 and reach as far as 1."""
    moved = c2w.copy()
    moved[:, :3, 3] -= c2w[shown, :3, 3].mean(0)
    reach = np.abs(moved[shown, :3, 3]).max()
    # cameras at one place have no extent: any unit serves, but a number that is only rounding does not
    if reach > 1e-12 * max(1e-300, np.abs(c2w[:, :3, 3]).max()):
        moved[:, :3, 3] /= reach
    return moved


def _some(pixels: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Up to `count` of the pixels, evenly spaced."""
    return pixels if len(pixels) <= count else pixels[np.arange(count) * len(pixels) // count]


def _directions(x: Array, y: Array, c2w: Array, K: Array) -> Array:
    """Directions [n, 3] in the world, of depth 1, through pixels x, y [n] of cameras [n, 4, 4] and [n, 3, 3]."""
    camera = np.stack([(x - K[:, 0, 2]) / K[:, 0, 0], (y - K[:, 1, 2]) / K[:, 1, 1], np.ones(len(x))], 1)
    directions: Array = (c2w[:, :3, :3] @ camera[:, :, None])[:, :, 0]
    return directions


def _ball(views: Silhouettes, c2w: Array, K: Array) -> tuple[Array, float]:
    """Centre and radius of a ball about the object.

    The centre is the point nearest to the rays through the middles of all silhouettes. Optical axes would serve where
    cameras look at the object, but not for pictures that were cropped around it.
    """
    index = np.flatnonzero(views.shown)
    h, w = views.solid.shape[1:]
    margin = kernels.MARGIN
    body = (views.beyond[index, margin:-margin, margin:-margin] == 0).astype(np.float64)
    weight = body.sum((1, 2))
    x = (body.sum(1) @ (np.arange(w) + 0.5)) / weight
    y = (body.sum(2) @ (np.arange(h) + 0.5)) / weight
    origins, axes = c2w[index, :3, 3], _directions(x, y, c2w[index], K[index])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # a small weight on the cameras' middle makes the system solvable for parallel rays
    system = across.sum(0) + 1e-9 * np.eye(3)
    middle = origins.mean(0)
    centre = middle + np.linalg.solve(system, (across @ (origins - middle)[:, :, None]).sum(0)[:, 0])
    distance = ((centre - origins) * axes).sum(1)
    if np.linalg.cond(system) > 1e6 or np.median(distance) <= 1e-3:
        reach = 1.1 * float(np.linalg.norm(origins - middle, axis=1).max()) or 1.0
        centre, distance = (origins + reach * axes).mean(0), np.full(len(origins), reach)
    half = 0.5 * max(h, w) / np.minimum(K[index, 0, 0], K[index, 1, 1])
    return centre, float(np.median(np.abs(distance)) * half.max()) * _MARGIN
