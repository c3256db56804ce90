"""Agreement of a view's depth, normals and mask with each other: what the renderer drew, against what it placed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_STEEPEST = math.cos(math.radians(80))  # beyond it a difference of depths is a jump, or a surface seen edge-on
_BELOW = -0.9999
"""The least agreement of normals that is told; -1 means unknown."""
_SQUARE = np.ones((3, 3))

Floats = NDArray[np.float64]


@dataclass
class SurfaceAgreement:
    """Sums over views that have depth and normals.

    `normals` is the mean cosine of the drawn normal and the normal of the depth map: the cross product of the 3 x 3
    Sobel derivatives of the unprojected points. Pixels count whose 3 x 3 neighbours all lie in the mask and have
    depth and a normal, and whose normal of the depth is within 80 degrees of the direction to the camera.

    `masks` is the intersection over the union of two masks: alpha, and the pixels that have a normal.
    """

    cosines: float = 0.0
    pixels: int = 0
    both: int = 0
    either: int = 0

    def add(
        self,
        mask: NDArray[np.bool_],
        depth: NDArray[np.float32],
        normals: NDArray[np.float32],
        c2w: Floats,
        K: Floats,
    ) -> None:
        """Add one view.

        Args:
            mask: bool [H, W], the silhouette in alpha.
            depth: [H, W], along the optical axis, NaN where there is none.
            normals: [H, W, 3] in the world, NaN where there are none.
            c2w: [4, 4], OpenCV camera-to-world.
            K: [3, 3], in pixels.
        """
        drawn = np.isfinite(normals).all(-1)
        self.both += int((mask & drawn).sum())
        self.either += int((mask | drawn).sum())
        inner = ndimage.binary_erosion(mask & drawn & np.isfinite(depth), _SQUARE)
        rows, columns = np.flatnonzero(inner.any(1)), np.flatnonzero(inner.any(0))
        if not len(rows):
            return
        box = (
            slice(rows[0] - 1, rows[-1] + 2),
            slice(columns[0] - 1, columns[-1] + 2),
        )  # an inner pixel has neighbours
        inner, corner = inner[box], (rows[0] - 1, columns[0] - 1)
        points = _unprojected(depth[box].astype(np.float64), K, corner)
        # rows go down and columns right, so that this points to the camera
        placed = np.cross(_slope(points, 0)[inner], _slope(points, 1)[inner])
        placed /= np.linalg.norm(placed, axis=1, keepdims=True)
        rays = points[inner] / np.linalg.norm(points[inner], axis=1, keepdims=True)
        seen = -(placed * rays).sum(1) >= _STEEPEST
        shown = normals[box][inner][seen].astype(np.float64)
        shown /= np.linalg.norm(shown, axis=1, keepdims=True)
        self.cosines += float((shown * (placed[seen] @ c2w[:3, :3].T)).sum())
        self.pixels += int(seen.sum())

    @property
    def normals(self) -> float:
        """Mean cosine of drawn and placed normals, -0.9999 to 1; -1 where nothing can be compared."""
        return max(_BELOW, self.cosines / self.pixels) if self.pixels else -1.0

    @property
    def masks(self) -> float:
        """Intersection over union of the masks, 0 to 1; -1 where there are none."""
        return self.both / self.either if self.either else -1.0


def _unprojected(depth: Floats, K: Floats, corner: tuple[int, int]) -> Floats:
    """Points [H, W, 3] of a part of a depth map in the camera's coordinates; pixel centres are at +0.5."""
    v, u = (np.arange(n) + first + 0.5 for n, first in zip(depth.shape, corner, strict=True))
    x, y = (u - K[0, 2]) / K[0, 0] * depth, ((v - K[1, 2]) / K[1, 1])[:, None] * depth
    return np.stack([x, y, depth], axis=-1)


def _slope(points: Floats, axis: int) -> Floats:
    """Sobel derivative of points [H, W, 3] along rows (0) or columns (1); wrong at the rim, and NaN beside NaN."""
    along = np.roll(points, -1, axis) - np.roll(points, 1, axis)
    slope: Floats = np.roll(along, -1, 1 - axis) + 2 * along + np.roll(along, 1, 1 - axis)
    return slope
