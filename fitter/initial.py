"""Initial positions of anchors, from silhouettes, depth maps or at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from gaussianverse.fitter.errors import BadInput, TooFewGaussians
from gaussianverse.fitter.views import OPAQUE, Views, silhouettes

Points = NDArray[np.float64]

_COARSE = 48
_NEAR = 1e-3
_ROUNDS = 40
_CENTRED = 1e-9  # of a side: rounding of intrinsics that were scaled with their images


def camera_extent(views: Views) -> float:
    """1.1 times the largest distance of a camera from the cameras' centroid (3DGS's scene extent); > 0."""
    centers = views.c2w[:, :3, 3]
    extent = 1.1 * float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    origin = float(np.linalg.norm(centers[0]))
    # a single camera has no extent, so its distance to the origin is the scale
    return extent if extent > 1e-6 * min(1.0, origin) else max(1e-3, origin)


def focus_box(views: Views) -> tuple[Points, Points]:
    """Corners of the cube in view: centred at the point nearest to the rays through all images' centres.

    It is as wide as the widest view. If the rays are parallel or meet behind the cameras, the cube is in front of
    them at the distance of their extent.
    """
    centers, axes = views.c2w[:, :3, 3], _central_rays(views)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # a small weight on the cameras' centroid makes the system solvable for parallel axes
    system = across.sum(0) + 1e-9 * np.eye(3)
    focus = np.linalg.solve(system, (across @ centers[:, :, None]).sum(0)[:, 0] + 1e-9 * centers.mean(0))
    distance = ((focus - centers) * axes).sum(1)
    reach = camera_extent(views)
    if np.linalg.cond(system) > 1e6 or np.median(distance) <= _NEAR * min(1.0, reach):
        focus, distance = (centers + reach * axes).mean(0), np.full(len(views), reach)
    # pixels may be wider than high: each side has its own focal length
    half_fov = 0.5 * np.maximum(views.width / views.Ks[:, 0, 0], views.height / views.Ks[:, 1, 1])
    half = float(np.median(np.abs(distance)) * half_fov.max()) * 1.05
    return focus - half, focus + half


def _central_rays(views: Views) -> Points:
    """World directions [V, 3] through the images' centres: the optical axes, unless images are off centre."""
    K = views.Ks
    x, y = 0.5 * views.width - K[:, 0, 2], 0.5 * views.height - K[:, 1, 2]
    x[np.abs(x) < _CENTRED * views.width] = 0
    y[np.abs(y) < _CENTRED * views.height] = 0
    rays = np.stack([x / K[:, 0, 0], y / K[:, 1, 1], np.ones(len(views))], -1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    world: Points = (views.c2w[:, :3, :3] @ rays[..., None])[..., 0]
    return world


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance in pixels from each pixel of the mask to the nearest outside it, 0 outside; large if there is none."""
    if mask.all():
        return np.full(mask.shape, float(sum(mask.shape)))
    return np.asarray(distance_transform_edt(mask), np.float64)


def inside_hull(points: Points, views: Views, reach: float = 0.0) -> NDArray[np.bool_]:
    """Mask [P] of the points [P, 3] inside the visual hull.

    A view does not judge points outside its image or behind its camera. With two or more views, a point that fewer
    than two judge is outside.

    Args:
        points: in the views' world.
        views: their silhouettes are those of `fitter.views.silhouettes`.
        reach: if > 0, radius of a ball about each point, which is outside only if the whole ball is, so that thin
            parts between the centres of a grid's cells are found. If < 0, it is inside only if the whole ball is.
    """
    height, width = views.height, views.width
    judges = np.zeros(len(points), np.intp)
    inside = np.ones(len(points), bool)
    for shown, viewmat, K in zip(silhouettes(views), views.viewmats, views.Ks, strict=True):
        rows = np.flatnonzero(inside)
        camera = points[rows] @ viewmat[:3, :3].T + viewmat[:3, 3]
        ahead = camera[:, 2] > _NEAR + abs(reach)
        z = np.where(ahead, camera[:, 2], 1.0 + abs(reach))
        x = K[0, 0] * camera[:, 0] / z + K[0, 2]
        y = K[1, 1] * camera[:, 1] / z + K[1, 2]
        judged = ahead & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rows, x, y, z = rows[judged], x[judged].astype(np.intp), y[judged].astype(np.intp), z[judged]
        judges[rows] += 1
        # distance to the silhouette's edge in pixels, negative inside; the ball's radius plus one pixel of rounding
        to_edge = _distance(~shown) - _distance(shown) if reach else np.where(shown, -1.0, 1.0)
        pixels = max(K[0, 0], K[1, 1]) * reach / (z - abs(reach)) + np.sign(reach)
        inside[rows[to_edge[y, x] > pixels]] = False
    return inside & (judges >= min(2, len(views)))


def hull_points(views: Views, count: int, rng: np.random.Generator) -> Points:
    """Random points [count, 3] just inside the surface of the visual hull.

    Cells that may intersect the hull are found on a coarse grid over `focus_box`, then among their octants. Points
    are drawn in cells that may intersect its surface, and kept if inside the hull.

    Raises:
        TooFewGaussians: the hull is empty.
    """
    low, high = focus_box(views)
    cells, cell = np.argwhere(np.ones((_COARSE,) * 3, bool)), (high - low) / _COARSE
    for halved in (False, True):
        if halved:
            cells = (2 * cells[:, None] + np.argwhere(np.ones((2, 2, 2), bool))).reshape(-1, 3)
            cell = cell / 2
        centers, reach = low + (cells + 0.5) * cell, float(np.linalg.norm(cell)) / 2
        cells = cells[inside_hull(centers, views, reach)]
    if not len(cells):
        raise _no_hull(views, low, high)
    core = inside_hull(low + (cells + 0.5) * cell, views, -reach)
    skin = cells[~core] if not core.all() else cells
    points = np.empty((0, 3))
    for _ in range(_ROUNDS):
        drawn = low + (skin[rng.integers(len(skin), size=4 * count)] + rng.random((4 * count, 3))) * cell
        points = np.concatenate([points, drawn[inside_hull(drawn, views)]])
        if len(points) >= count:
            return points[:count]
    if not len(points):
        raise _no_hull(views, low, high)
    # a hull thinner than a thousandth of its box: repeat the points that were found, with a small random shift
    again = points[rng.integers(len(points), size=count - len(points))]
    return np.concatenate([points, again + 0.1 * cell * rng.standard_normal(again.shape)])


def _no_hull(views: Views, low: Points, high: Points) -> TooFewGaussians:
    return TooFewGaussians(
        f"the silhouettes of {len(views)} views have no point in common (box {low.round(3).tolist()} to "
        f"{high.round(3).tolist()}): poses and alpha do not match; check the images, or fit with init = 'random'"
    )


def depth_points(views: Views, count: int, rng: np.random.Generator) -> Points:
    """Random points [count, 3] of the views' depth maps, where alpha is opaque.

    Raises:
        BadInput: the views have no depth.
        TooFewGaussians: no opaque pixel has a depth.
    """
    if views.depths is None:
        raise BadInput("init = 'depth' needs depth maps (`_nd.exr`) and the views have none; use init = 'hull'")
    low, high = focus_box(views)
    distances = (((low + high) / 2 - views.c2w[:, :3, 3]) * views.c2w[:, :3, 2]).sum(1)[:, None, None]
    usable = (views.images[..., 3] >= OPAQUE) & np.isfinite(views.depths) & (views.depths > _NEAR)
    # farther away is no part of the object, but a background, or a depth in another unit than the cameras
    usable &= np.abs(views.depths - distances) <= np.linalg.norm(high - low) / 2
    pixels = np.argwhere(usable)
    if not len(pixels):
        raise TooFewGaussians(
            "no opaque pixel of the views has a depth within the space in view; check the unit of the depths, or use "
            "init = 'hull'"
        )
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
    """Random points [count, 3], uniform in `focus_box`, as the paper says literally."""
    low, high = focus_box(views)
    points: Points = low + rng.random((count, 3)) * (high - low)
    return points


INITIAL = {"hull": hull_points, "depth": depth_points, "random": random_points}


def neighbour_distance(points: Points) -> Points:
    """Mean distance [P] of each point to its three nearest neighbours, at least 1e-6."""
    if len(points) == 1:
        return np.array([1e-2])
    k = min(4, len(points))
    distances, _ = cKDTree(points).query(points, k=k)
    mean: Points = np.maximum(distances[:, 1:].mean(1), 1e-6)
    return mean
