"""Perceptual hash of an object's views: near for what looks alike, whatever the order, size and distance of views."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.views import Views, silhouettes

DIRECTIONS = {"front": (0, -1, 0), "right": (1, 0, 0), "back": (0, 1, 0), "top": (0, 0, 1)}
"""From the object's centre to the camera, in the world, z up."""
_ALIKE = 1e-6  # two views are as near to a direction as each other if their cosines differ by less
_SIDE = 32
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_BITS = 16
# by i + j, then by i, without the mean
_FREQUENCIES = sorted(((i, j) for i in range(6) for j in range(6)), key=lambda f: (f[0] + f[1], f))[1 : _BITS + 1]
_COSINES = np.array([[math.cos(math.pi * f * (2 * k + 1) / (2 * _SIDE)) for k in range(_SIDE)] for f in range(6)])


def view_hash(views: Views, center: NDArray[np.float64]) -> str:
    """Hash the four views that are nearest to front, right, back and top by angle.

    Of each, the square around the silhouette is shrunk to 32 x 32 pixels of alpha (1 + Y) / 2, Y being luminance. Its
    16 lowest frequencies but the mean (DCT-II, by i + j, then by i) each give a bit: whether the coefficient exceeds
    their median. The first view's are the highest bits.

    Args:
        views: distinct views of an object, in its world.
        center: float64 [3], the object's centre there.

    Returns:
        16 hexadecimal digits; "" if a view has no silhouette.
    """
    word = 0
    for view in canonical_views(views, center):
        image = views.images[view]
        mask = next(silhouettes(views[np.array([view])]))
        if not mask.any():
            return ""
        for bit in _bits(image, mask):
            word = 2 * word + bit
    return f"{word:016x}"


def canonical_views(views: Views, center: NDArray[np.float64]) -> list[int]:
    """The view nearest to each of `DIRECTIONS` by angle; of equally near ones the camera that is first by x, y, z."""
    towards = views.c2w[:, :3, 3] - center
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
    found = []
    for direction in DIRECTIONS.values():
        cosines = towards @ np.array(direction, np.float64)
        nearest = np.flatnonzero(cosines >= cosines.max() - _ALIKE)
        found.append(min(map(int, nearest), key=lambda v: tuple(np.round(towards[v], 5))))
    return found


def _bits(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[int]:
    brightness = image[..., 3] / 255 * (1 + image[..., :3] @ _LUMINANCE / 255) / 2
    small = _square(brightness, mask)
    # rounded, or the last bits of a processor would decide about coefficients that are 0 by symmetry
    found = np.array([round(float(_COSINES[i] @ small @ _COSINES[j]), 6) for i, j in _FREQUENCIES])
    return [int(bit) for bit in found > np.median(found)]


def _square(brightness: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The square around the mask, [32, 32], each pixel the mean of what it covers."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = brightness[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(part.shape)
    margins = [((side - n) // 2, side - n - (side - n) // 2) for n in part.shape]
    edges, pixels = np.arange(_SIDE + 1)[:, None] * (side / _SIDE), np.arange(side)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    shares = np.maximum(covered, 0) * (_SIDE / side)
    small: NDArray[np.float64] = shares @ np.pad(part, margins) @ shares.T
    return small
