"""Quality columns of an object's views: how much of them it fills, and how much there is to see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gaussianverse.fitter.views import Views, silhouettes

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, of the encoded values
_GREY = 0.5  # between black and white, so that edges of half-transparent parts favour neither
_SOBEL = 8.0  # sum of the kernel's positive weights times the step of 2 pixels: the gradient is per pixel


def quality(views: Views) -> dict[str, float]:
    """Measure what the masks and colours of views are like.

    Returns:
        coverage: mean of alpha, 0 to 1.
        colour_std: standard deviation of RGB (0 to 1) inside the masks of all views: the root of the mean over the
            three channels of their variances.
        complexity: mean over the views of the mean magnitude of the Sobel gradient of luminance, per pixel, inside
            the mask less one pixel of rim; with the rim it would follow silhouettes and not detail.

    Colours are straight alpha over mid grey. -1 where no view has a pixel to measure.
    """
    inside, total, squares = 0, np.zeros(3), np.zeros(3)
    gradients = []
    for image, mask in zip(views.images, silhouettes(views), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        # a pixel of margin, which the gradient at the rim sees
        box = tuple(slice(max(0, ends[0] - 1), ends[-1] + 2) for ends in (rows, columns))
        rgba, mask = image[box].astype(np.float32) / 255, mask[box]
        rgb = rgba[..., :3] * rgba[..., 3:] + _GREY * (1 - rgba[..., 3:])
        values = rgb[mask].astype(np.float64)
        inside, total, squares = inside + len(values), total + values.sum(0), squares + (values**2).sum(0)
        if (inner := ndimage.binary_erosion(mask, np.ones((3, 3)))).any():
            gradients.append(float(_gradient(rgb @ _LUMINANCE)[inner].mean(dtype=np.float64)))
    variance = squares / max(inside, 1) - (total / max(inside, 1)) ** 2
    return {
        "coverage": float(views.images[..., 3].mean(dtype=np.float64)) / 255 if len(views) else -1.0,
        "colour_std": float(np.sqrt(max(0.0, variance.mean()))) if inside else -1.0,
        "complexity": float(np.mean(gradients)) if gradients else -1.0,
    }


def _gradient(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the Sobel gradient of an image [H, W], per pixel."""
    along = [ndimage.sobel(luminance, axis=axis, mode="nearest") / _SOBEL for axis in (0, 1)]
    magnitude: NDArray[np.float32] = np.hypot(*along)
    return magnitude
