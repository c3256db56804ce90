"""The frame in which a fit is made: the object about the origin, as large as in GObjaverse.

Voxels, near planes and the volume term of the loss are lengths. Renders come in metres, millimetres or nothing, so
the views are brought to one scale before the fit and the Gaussians are taken back after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.initial import focus_box
from gaussianverse.fitter.views import Views

# half the side of the cube that GObjaverse's cameras have in view, rounded
HALF = 0.6


@dataclass(frozen=True)
class Frame:
    """world = center + unit * frame.

    Attributes:
        center: float64 [3], world units.
        unit: world units per unit of the frame, > 0.
    """

    center: NDArray[np.float64]
    unit: float

    def views(self, views: Views) -> Views:
        """The same views, their cameras and depths in the frame."""
        c2w = views.c2w.copy()
        c2w[:, :3, 3] = (c2w[:, :3, 3] - self.center) / self.unit
        depths = None if views.depths is None else (views.depths / np.float32(self.unit)).astype(np.float32)
        return replace(views, c2w=c2w, depths=depths)

    def world(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of the frame, in the world."""
        means = self.center + self.unit * gaussians.means.astype(np.float64)
        scales = self.unit * gaussians.scales.astype(np.float64)
        return replace(gaussians, means=means.astype(np.float32), scales=scales.astype(np.float32))


def frame_of(views: Views) -> Frame:
    """The frame that brings what the views look at into [-0.6, 0.6]^3."""
    low, high = focus_box(views)
    return Frame((low + high) / 2, float((high - low).max()) / (2 * HALF))
