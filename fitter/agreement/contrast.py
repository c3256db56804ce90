"""Refusal by contrast: views that do not agree as they are, but do once one mistake in all of them is corrected."""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement.corrections import (
    DEPTHS,
    RAYS,
    SIZE,
    SWAPPED,
    Corrected,
    of_cameras,
    of_pictures,
    swapped,
)
from gaussianverse.fitter.agreement.rays import Array, look
from gaussianverse.fitter.agreement.silhouettes import silhouettes
from gaussianverse.fitter.agreement.verdict import AGREES, FEW, Suggestion, agreement

CENTRED = "the principal points are the middles of pictures whose width and height are swapped"
_FIRST, _FIRST_RAYS, _FIRST_DEPTHS = 16, 256, 64  # views and rays of a first look, which most corrections fail
_LIKELY = 0.9  # agreement in the first look that is worth a second
_GENEROUS = 3  # pixels that a point may lie outside a silhouette, for views as they are
_FITS = 0.9  # agreement of views as they are, seen so generously, from which no other mistake is looked for
_TELLS = 0.75  # share of the rays that must say something once the mistake is corrected
_NEAR = 0.05  # distance of a principal point from the middle, as a share of the difference of the sides


def mistaken(alpha: NDArray[np.uint8], c2w: Array, K: Array) -> Suggestion | None:
    """Find the one mistake in all views whose correction makes them agree; they do not agree as they are.

    Right views are doubtful for poses or masks that are not exact, and seen generously they fit; or for sheets that
    vanish edge-on, and then no correction fits either. Few views agree by chance under one correction or another, so
    they are not asked.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4].
        K: intrinsics in pixels, float64 [V, 3, 3].
    """
    views, best = silhouettes(alpha, SIZE), Suggestion(0.0, "")
    shown = np.flatnonzero(views.shown)
    if not views.tell or len(shown) <= FEW or agreement(look(views, c2w, K, RAYS, DEPTHS), _GENEROUS) >= _FITS:
        return None
    first = shown[:: -(-len(shown) // _FIRST)]
    for corrected in chain(of_cameras(views, alpha.shape, c2w, K), of_pictures(views, alpha.shape, c2w, K)):
        if corrected.some(first).agreement(_FIRST_RAYS, _FIRST_DEPTHS)[0] < _LIKELY:
            continue
        found, told = corrected.agreement()
        if found >= AGREES and found > best.agreement and told >= _TELLS:
            best = Suggestion(found, corrected.text)
    return best if best.text else None


def sides_swapped(alpha: NDArray[np.uint8], c2w: Array, K: Array) -> Suggestion | None:
    """Say so if the principal point of every view would be its middle, were width and height swapped.

    Silhouettes may say that it is right nevertheless: then they agree better as they are.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4].
        K: intrinsics in pixels, float64 [V, 3, 3].
    """
    H, W = alpha.shape[1:]
    off = np.abs(K[:, :2, 2] - (0.5 * H, 0.5 * W)).max()
    if off > _NEAR * abs(W - H) or W == H:
        return None
    views = silhouettes(alpha, SIZE)
    given, _ = Corrected("", views, c2w, K).agreement()
    found, _ = Corrected("", views, c2w, swapped(K)).agreement()
    if found < given:
        return None
    return Suggestion(found, SWAPPED if found >= AGREES else CENTRED)
