"""Geometry of Gaussians against depth and normals of views: maps inside the mask, and distances of points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.rasterize import MAX_ALPHA, device_and_backend, rasterization
from gaussianverse.fitter.views import Views

THRESHOLDS = (0.01, 0.02, 0.05)
"""Distances, in units of the Gaussians, within which a point counts as found by an F-score."""
VOXEL = 0.02
"""Side of the voxels of the IoU, in the same units."""
MOST_POINTS, SEED = 100_000, 0
"""Points of a set that distances are measured from and to, drawn by this seed where there are more."""
_SOLID = 0.5  # alpha from which a pixel shows a surface

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """Agreement of Gaussians with the depth and normals of views; -1 where nothing could be compared.

    No alignment is applied: both are in the frame of the cameras.

    Attributes:
        depth_l1: mean absolute difference of depth along the optical axis, in units of the Gaussians.
        normal_degrees: mean angle between the normal of the rendered depth and that of the view.
        covered: share of the compared pixels of the masks in which the Gaussians have an alpha of at least 0.5;
            both means are over these.
        chamfer: half the sum of the mean distances from each set of points to the other, not squared.
        f_scores: harmonic mean of precision and recall at each of `THRESHOLDS`.
        iou: common share of the voxels, of side `VOXEL`, that hold a point of either set.
    """

    depth_l1: float
    normal_degrees: float
    covered: float
    chamfer: float
    f_scores: tuple[float, ...]
    iou: float


def compare_geometry(
    gaussians: Gaussians, views: Views, *, backend: str = "cpu", max_alpha: float = MAX_ALPHA, unit: float = 1.0
) -> Geometry | None:
    """Compare Gaussians with views that have depth; None if no view has any.

    Depth of Gaussians is the alpha-weighted mean of their centres' depths along each ray. Pixels are compared where
    the view has depth, less one pixel of rim, where depth jumps. Points are the surfaces that these views see.

    Args:
        gaussians: in the frame of the cameras.
        views: with depths, and with normals if angles are wanted.
        backend: backend of the rasteriser.
        max_alpha: as in the fit.
        unit: results are lengths in the frame times this.
    """
    if views.depths is None or not np.isfinite(views.depths).any():
        return None
    differences, angles, inside, shown = list[Floats](), list[Floats](), 0, 0
    seen, drawn = list[Floats](), list[Floats]()
    for v, (depth, alpha) in enumerate(_rendered(gaussians, views, backend, max_alpha)):
        expected = views.depths[v].astype(np.float64)
        known = np.isfinite(expected)
        inner = ndimage.binary_erosion(known, np.ones((3, 3)))
        solid = alpha >= _SOLID
        both = inner & solid
        inside, shown = inside + int(inner.sum()), shown + int(both.sum())
        differences.append(np.abs(depth - expected)[both])
        points = unprojected(depth, views.Ks[v])
        if views.normals is not None:
            angles.append(_angles(points, solid, views.normals[v], views.c2w[v], both))
        seen.append(_world(unprojected(expected, views.Ks[v])[known], views.c2w[v]))
        drawn.append(_world(points[solid], views.c2w[v]))
    chamfer, f_scores, iou = compare_points(unit * np.concatenate(drawn), unit * np.concatenate(seen))
    return Geometry(
        depth_l1=unit * _mean(differences),
        normal_degrees=_mean(angles),
        covered=shown / inside if inside else -1.0,
        chamfer=chamfer,
        f_scores=f_scores,
        iou=iou,
    )


def compare_points(one: Floats, other: Floats) -> tuple[float, tuple[float, ...], float]:
    """Chamfer distance, F-scores and IoU, as in `Geometry`, of two sets of points [P, 3]; -1 if one is empty."""
    if not len(one) or not len(other):
        return -1.0, (-1.0,) * len(THRESHOLDS), -1.0
    cells = [set(map(bytes, np.unique(np.floor(p / VOXEL).astype(np.int64), axis=0))) for p in (one, other)]
    iou = len(cells[0] & cells[1]) / len(cells[0] | cells[1])
    one, other = (_drawn(points) for points in (one, other))
    there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
    scores = []
    for threshold in THRESHOLDS:
        precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return (float(there.mean()) + float(back.mean())) / 2, tuple(scores), iou


def unprojected(depth: Floats, K: Floats) -> Floats:
    """Points [H, W, 3] of a depth map [H, W], in the camera's coordinates; pixel centres are at +0.5."""
    v, u = (np.arange(n) + 0.5 for n in depth.shape)
    x, y = (u - K[0, 2]) / K[0, 0] * depth, ((v - K[1, 2]) / K[1, 1])[:, None] * depth
    return np.stack([x, y, depth], axis=-1)


def _rendered(gaussians: Gaussians, views: Views, backend: str, max_alpha: float) -> Iterator[tuple[Floats, Floats]]:
    """Depth and alpha [H, W] of each view."""
    device, backend = device_and_backend(backend)
    means, quats, scales, opacities, colors = (
        torch.from_numpy(field).to(device)
        for field in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors)
    )
    for viewmat, K in zip(views.viewmats, views.Ks, strict=True):
        camera, intrinsics = (torch.from_numpy(a)[None].float().to(device) for a in (viewmat, K))
        with torch.no_grad():
            image, alpha, _ = rasterization(
                means, quats, scales, opacities, colors, camera, intrinsics, views.width, views.height,
                render_mode="RGB+ED", max_alpha=max_alpha, backend=backend,
            )  # fmt: skip
        yield image[0, ..., 3].double().cpu().numpy(), alpha[0, ..., 0].double().cpu().numpy()


def _angles(
    points: Floats, solid: NDArray[np.bool_], normals: NDArray[np.float32], c2w: Floats, both: NDArray[np.bool_]
) -> Floats:
    """Angles in degrees between normals from neighbouring points and those of a view, where both are known."""
    along = np.gradient(points, axis=(0, 1))
    # rows go down and columns right, so that this points to the camera
    drawn = np.cross(along[0], along[1]) @ c2w[:3, :3].T
    lengths = np.linalg.norm(drawn, axis=-1) * np.linalg.norm(normals, axis=-1)
    # a normal from central differences needs all neighbours
    usable = both & ndimage.binary_erosion(solid, np.ones((3, 3))) & (lengths > 0) & np.isfinite(lengths)
    cosines = (drawn[usable] * normals[usable]).sum(-1) / lengths[usable]
    angles: Floats = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return angles


def _world(points: Floats, c2w: Floats) -> Floats:
    moved: Floats = points @ c2w[:3, :3].T + c2w[:3, 3]
    return moved


def _drawn(points: Floats) -> Floats:
    """At most `MOST_POINTS` of the points."""
    if len(points) <= MOST_POINTS:
        return points
    return points[np.random.default_rng(SEED).choice(len(points), MOST_POINTS, replace=False)]


def _mean(parts: list[Floats]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else -1.0
