"""Silhouettes of views, shrunk: where rays start, and how far outside it each pixel lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement import kernels

SIZE = 96
"""Longer side, in pixels, to which silhouettes are shrunk; smaller ones stay as they are."""
_FULL_BORDER = 0.5  # share of the frame's outermost pixels from which a silhouette fills the frame


@dataclass(frozen=True)
class Silhouettes:
    """Shrunk silhouettes of V views.

    Rays start from strict ones (`solid`) and are held against generous ones (`beyond`), so that shrinking costs no
    thin part.

    Attributes:
        solid: bool [V, h, w], where a pixel is object.
        rim: bool [V, h, w], the pixels of `solid` near its outline.
        beyond: uint8 [V, h, w], squared distance to the nearest pixel with any object, in pixels, at most 64.
        shown: bool [V], views that are neither blank nor full.
        border: float64 [V], share of the frame's outermost pixels that is object.
        scale: shrunk pixels per pixel, in x and y.
    """

    solid: NDArray[np.bool_]
    rim: NDArray[np.bool_]
    beyond: NDArray[np.uint8]
    shown: NDArray[np.bool_]
    border: NDArray[np.float64]
    scale: tuple[float, float]

    @property
    def tell(self) -> bool:
        """Whether they say anything about the cameras: two or more do not fill the frame, and most do not."""
        full = ~self.shown & (self.border > 0)
        if self.shown.sum() < max(2, full.sum()):
            return False
        return bool(np.median(self.border[self.shown | full]) <= _FULL_BORDER)


def silhouettes(alpha: NDArray[np.uint8], size: int = SIZE) -> Silhouettes:
    """Shrink alpha, uint8 [V, H, W], to a longer side of `size` pixels."""
    V, H, W = alpha.shape
    shrink = max(1.0, max(H, W) / size)
    h, w = max(1, round(H / shrink)), max(1, round(W / shrink))
    mean, faint = np.empty((V, h, w)), np.empty((V, h, w), np.bool_)
    rows, columns = np.arange(h + 1) * H // h, np.arange(w + 1) * W // w
    kernels.shrink(np.ascontiguousarray(alpha), rows, columns, mean, faint)
    solid, rim = np.zeros((2, V, h, w), np.bool_)
    beyond = np.empty((V, h, w), np.uint8)
    kernels.outlines(mean, faint, solid, rim, beyond)
    outer = np.ones((h, w), np.bool_)
    outer[1:-1, 1:-1] = False
    count = np.count_nonzero(faint, axis=(1, 2))
    shown: NDArray[np.bool_] = (count > 0) & (count < h * w)
    return Silhouettes(solid, rim, beyond, shown, solid[:, outer].mean(1), (w / W, h / H))
