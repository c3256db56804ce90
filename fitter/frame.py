"""Coordinate frames: the one that fits happen in, and the one that Gaussians are published in.

Voxels, near planes and the volume term of the loss are lengths, renders have any unit, and an atlas is laid on a unit
sphere. So views are transformed to one scale before a fit, in float64, and Gaussians stay there unless their world is
like GObjaverse's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.initial import focus_box
from gaussianverse.fitter.views import Views, silhouettes

# half the side of the cube in view of GObjaverse's cameras, rounded
HALF = 0.6
SMALLEST = 0.1
"""Least distance from the origin that an object reaches whose positions are kept; it reaches 1 at most."""
PRECISION = 1e-5
"""Largest step of float32 at an object's place that its positions may be rounded by, as a fraction of its size."""


@dataclass(frozen=True)
class Frame:
    """Similarity transform: world = center + unit * frame.

    Attributes:
        center: float64 [3], world units.
        unit: world units per unit of the frame, > 0.
    """

    center: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    unit: float = 1.0

    def views(self, views: Views) -> Views:
        """Transform the cameras and depths of views to the frame."""
        c2w = views.c2w.copy()
        c2w[:, :3, 3] = (c2w[:, :3, 3] - self.center) / self.unit
        with np.errstate(over="ignore"):  # what is no depth becomes infinite
            depths = None if views.depths is None else views.depths / np.float32(self.unit)
        return replace(views, c2w=c2w, depths=depths)

    def world(self, gaussians: Gaussians) -> Gaussians:
        """Transform Gaussians from the frame to the world, rounded to float32."""
        means = self.center + self.unit * gaussians.means.astype(np.float64)
        scales = self.unit * gaussians.scales.astype(np.float64)
        return replace(gaussians, means=means.astype(np.float32), scales=scales.astype(np.float32))

    def local(self, gaussians: Gaussians) -> Gaussians:
        """Transform Gaussians from the world to the frame, rounded to float32."""
        means = (gaussians.means.astype(np.float64) - self.center) / self.unit
        scales = gaussians.scales.astype(np.float64) / self.unit
        return replace(gaussians, means=means.astype(np.float32), scales=scales.astype(np.float32))

    @property
    def stats(self) -> dict[str, float]:
        """`center_x`, `center_y`, `center_z` and `unit`, which undo the transform."""
        return {**{f"center_{a}": float(v) for a, v in zip("xyz", self.center, strict=True)}, "unit": self.unit}


WORLD = Frame()
"""The views' own world."""


def frame_of(views: Views) -> Frame:
    """Frame in which the cube in view is [-0.6, 0.6]^3."""
    low, high = focus_box(views)
    return Frame((low + high) / 2, float((high - low).max()) / (2 * HALF))


def published_frame(views: Views, frame: Frame, normalise: str) -> Frame:
    """Frame in which the Gaussians of views are published.

    Args:
        views: the views of one object, in its world.
        frame: the frame of its fit.
        normalise: "auto" keeps the world if it is like GObjaverse's: silhouettes stay within the unit ball about the
            origin, and reach `SMALLEST`. "never" keeps any world, "always" none.

    Raises:
        BadInput: "never", and float32 cannot hold the object's positions.
    """
    if normalise == "never":
        _check_precision(frame)
    keeps = normalise == "never" or (normalise == "auto" and SMALLEST <= reach_of(views) <= 1)
    return WORLD if keeps else frame


def reach_of(views: Views) -> float:
    """Largest distance from the world's origin to a ray through a silhouette.

    An object reaches at least that far from the origin, and hardly farther if views are from around.
    """
    largest = 0.0
    for mask, c2w, K in zip(silhouettes(views), views.c2w, views.Ks, strict=True):
        rows = np.flatnonzero(mask.any(1))
        if not len(rows):
            continue
        # along a row of pixels the distance is largest at one of its ends
        first, last = mask[rows].argmax(1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
        x, y = np.concatenate([first, last]) + 0.5, np.concatenate([rows, rows]) + 0.5
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(len(x))], -1) @ c2w[:3, :3].T
        moments = np.cross(c2w[:3, 3], rays / np.linalg.norm(rays, axis=1, keepdims=True))
        largest = max(largest, float(np.linalg.norm(moments, axis=1).max()))
    return largest


def _check_precision(frame: Frame) -> None:
    size = 2 * HALF * frame.unit
    farthest = float(np.abs(frame.center).max()) + size / 2
    step = float(np.spacing(np.float32(farthest)))
    if not step <= PRECISION * size:
        raise BadInput(
            f"the object is {size:.3g} wide and lies {farthest:.3g} from the origin, where numbers in float32 are "
            f"{step:.2g} apart; move it to the origin, or set fit.normalise = 'auto'"
        )
