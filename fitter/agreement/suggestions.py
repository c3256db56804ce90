"""What would make cameras and silhouettes agree: the usual mistakes, tried one after the other."""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement.corrections import SIZE, Corrected, of_cameras, of_pictures
from gaussianverse.fitter.agreement.rays import Array
from gaussianverse.fitter.agreement.silhouettes import silhouettes
from gaussianverse.fitter.agreement.verdict import AGREES, Suggestion

_BETTER = 0.01  # by which a correction must improve the agreement
_ZOOMS = np.exp(np.arange(-10, 11) * 0.05)  # factors of the focal lengths, 0.6 to 1.65
_ZOOMED = 0.06  # logarithm of the least factor worth a word
_FLAT = 0.005  # agreements that differ by less say the same; the middle of such factors is named


def suggest(alpha: NDArray[np.uint8], c2w: Array, K: Array) -> Suggestion | None:
    """Find the mistake whose correction makes all views agree; None if no usual one does.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4].
        K: intrinsics in pixels, float64 [V, 3, 3].
    """
    views, best = silhouettes(alpha, SIZE), Suggestion(0.0, "")
    given = Corrected("", views, c2w, K)
    # what agrees as it is, seen as coarsely as here, needs no correction
    least = max(AGREES, given.agreement()[0] + _BETTER)
    cameras, pictures = of_cameras(views, alpha.shape, c2w, K), of_pictures(views, alpha.shape, c2w, K)
    inverted = given._replace(text="alpha is inverted", views=silhouettes(255 - alpha, SIZE))
    for corrected in chain(cameras, pictures, [inverted]):
        found, _ = corrected.agreement()
        if found > best.agreement:
            best = Suggestion(found, corrected.text)
    if best.agreement < least:
        zoomed = np.array([given._replace(K=K * _zoom(zoom)).agreement()[0] for zoom in _ZOOMS])
        fitting = zoomed >= zoomed.max() - _FLAT
        zoom = np.exp(np.log(_ZOOMS[fitting]).mean())
        if abs(np.log(zoom)) >= _ZOOMED:
            text = f"focal lengths are multiplied by about {zoom:.2f}: the field of view is wrong"
            best = max(best, Suggestion(float(zoomed.max()), text))
    return best if best.agreement >= least else None


def _zoom(factor: float) -> Array:
    zoom = np.ones((3, 3))
    zoom[0, 0] = zoom[1, 1] = factor
    return zoom
