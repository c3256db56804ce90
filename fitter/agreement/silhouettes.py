"""Silhouettes of views, shrunk: where rays start, and how far outside it each pixel lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement import kernels

SIZE = 96
"""Longer side, in pixels, to which silhouettes are shrunk; smaller ones stay as they are."""
_THIN = 0.9  # share of the silhouettes that lies near their rims
_CUT = 0.01  # share of pixels with partial alpha
_OF_VIEWS = ("solid", "rim", "beyond", "cropped", "shown", "border")  # arrays with an entry for each view
_FULL_BORDER = 0.5  # share of the frame's outermost pixels from which a silhouette fills the frame


@dataclass(frozen=True)
class Silhouettes:
    """Shrunk silhouettes of V views.

    Rays start from strict ones (`solid`) and are held against generous ones (`beyond`), so that shrinking costs no
    thin part.

    Attributes:
        solid: bool [V, h, w], where a pixel is object.
        rim: bool [V, h, w], the pixels of `solid` near its outline.
        beyond: uint8 [V, h + 14, w + 14], squared distance to the nearest pixel with any object, in pixels, at most
            64; also 7 pixels around the frame, unless the view is cropped.
        cropped: bool [V], views whose silhouettes touch the frame: there may be more of the object.
        shown: bool [V], views that are neither blank nor full.
        border: float64 [V], share of the frame's outermost pixels that is object.
        scale: shrunk pixels per pixel, in x and y.
        cut: whether they were cut at a threshold, so that views may lack thin parts that others show.
        thin: whether they are hardly wider than a few pixels.
    """

    solid: NDArray[np.bool_]
    rim: NDArray[np.bool_]
    beyond: NDArray[np.uint8]
    cropped: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    border: NDArray[np.float64]
    scale: tuple[float, float]
    cut: bool
    thin: bool

    @property
    def tell(self) -> bool:
        """Whether they say anything about the cameras: two or more do not fill the frame, and most do not."""
        full = ~self.shown & (self.border > 0)
        if self.shown.sum() < max(2, full.sum()):
            return False
        return bool(np.median(self.border[self.shown | full]) <= _FULL_BORDER)

    def some(self, index: NDArray[np.intp]) -> Silhouettes:
        """Silhouettes of some views, or of all in another order."""
        arrays = {name: getattr(self, name)[index] for name in _OF_VIEWS}
        return replace(self, **arrays)


def silhouettes(alpha: NDArray[np.uint8], size: int = SIZE) -> Silhouettes:
    """Shrink alpha, uint8 [V, H, W], to a longer side of `size` pixels."""
    V, H, W = alpha.shape
    shrink = max(1.0, max(H, W) / size)
    h, w = max(1, round(H / shrink)), max(1, round(W / shrink))
    mean, faint = np.empty((V, h, w)), np.empty((V, h, w), np.bool_)
    rows, columns = np.arange(h + 1) * H // h, np.arange(w + 1) * W // w
    partial = kernels.shrink(np.ascontiguousarray(alpha), rows, columns, mean, faint)
    solid, rim = np.zeros((2, V, h, w), np.bool_)
    cropped = np.zeros(V, np.bool_)
    beyond = np.empty((V, h + 2 * kernels.MARGIN, w + 2 * kernels.MARGIN), np.uint8)
    kernels.outlines(mean, faint, solid, rim, cropped, beyond)
    outer = np.ones((h, w), np.bool_)
    outer[1:-1, 1:-1] = False
    count = np.count_nonzero(faint, axis=(1, 2))
    shown: NDArray[np.bool_] = (count > 0) & (count < h * w)
    thin = bool(np.count_nonzero(rim) >= _THIN * np.count_nonzero(solid))
    outer_share = solid[:, outer].mean(1)
    return Silhouettes(solid, rim, beyond, cropped, shown, outer_share, (w / W, h / H), partial < _CUT, thin)
