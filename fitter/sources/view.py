"""A posed image from a reader."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class View(NamedTuple):
    """One posed image; `fitter.views.Views` stacks and validates them.

    Attributes:
        name: name of the view in its source, e.g. "00012" or "train/r_7".
        image: uint8 [H, W, 4], RGBA with straight alpha.
        c2w: float64 [4, 4], OpenCV camera-to-world (x right, y down, z forward).
        K: float64 [3, 3], in pixels; the centre of the top-left pixel is at (0.5, 0.5).
        depth: float32 [H, W] along the optical axis, NaN where empty or unknown; None if the source has none.
        test: whether the view is of the data's own test split.
        normal: float32 [H, W, 3] in the world, NaN where empty or unknown; None if the source has none.
        geometry: float32 [H, W, 4], normal and depth, if they are to be compared; None otherwise.
    """

    name: str
    image: NDArray[np.uint8]
    c2w: NDArray[np.float64]
    K: NDArray[np.float64]
    depth: NDArray[np.float32] | None = None
    test: bool = False
    normal: NDArray[np.float32] | None = None
    geometry: NDArray[np.float32] | None = None
