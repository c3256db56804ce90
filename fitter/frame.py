"""Coordinate frame of fits: the object at the origin, as large as in GObjaverse.

Voxels, near planes and the volume term of the loss are lengths, and renders have any unit. So views are
transformed to one scale before a fit, and Gaussians back after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.initial import focus_box
from gaussianverse.fitter.views import Views

# half the side of the cube in view of GObjaverse's cameras, rounded
HALF = 0.6


@dataclass(frozen=True)
class Frame:
    """Similarity transform: world = center + unit * frame.

    Attributes:
        center: float64 [3], world units.
        unit: world units per unit of the frame, > 0.
    """

    center: NDArray[np.float64]
    unit: float

    def views(self, views: Views) -> Views:
        """Transform the cameras and depths of views to the frame."""
        c2w = views.c2w.copy()
        c2w[:, :3, 3] = (c2w[:, :3, 3] - self.center) / self.unit
        depths = None if views.depths is None else (views.depths / np.float32(self.unit)).astype(np.float32)
        return replace(views, c2w=c2w, depths=depths)

    def world(self, gaussians: Gaussians) -> Gaussians:
        """Transform Gaussians from the frame to the world."""
        means = self.center + self.unit * gaussians.means.astype(np.float64)
        scales = self.unit * gaussians.scales.astype(np.float64)
        return replace(gaussians, means=means.astype(np.float32), scales=scales.astype(np.float32))


def frame_of(views: Views) -> Frame:
    """Frame in which the cube in view is [-0.6, 0.6]^3."""
    low, high = focus_box(views)
    return Frame((low + high) / 2, float((high - low).max()) / (2 * HALF))
