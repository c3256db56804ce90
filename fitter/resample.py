"""Shrinking of images by exact area averaging."""

import numpy as np
from numpy.typing import NDArray


def area_weights(n: int, m: int) -> NDArray[np.float32]:
    """[m, n] weights that average n cells into m <= n equal ones by overlap; each row sums to 1."""
    edges = np.arange(m + 1, dtype=np.float64) * n / m
    cells = np.arange(n, dtype=np.float64)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (overlap.clip(min=0) * (m / n)).astype(np.float32)


def shrink_rgba(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 4] straight alpha -> [height, width, 4], averaged by area.

    Colours are averaged premultiplied, so that the hidden colour of empty pixels does not bleed in;
    where the mean alpha is 0 the colour is 0.
    """
    rgba = image.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    rows = np.tensordot(area_weights(image.shape[0], height), rgba, axes=(1, 0))  # [h, W, 4]
    mean = np.matmul(area_weights(image.shape[1], width), rows)  # [h, w, 4]
    alpha = mean[..., 3:]
    mean[..., :3] *= np.divide(255, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    shrunk: NDArray[np.uint8] = np.rint(mean).clip(0, 255).astype(np.uint8)
    return shrunk


def shrink_depth(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """float32 [H, W] -> [height, width], the sample under each new pixel's centre.

    A mean across a silhouette would invent surface between the object and what is behind it.
    """
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(np.intp)
    cols = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(np.intp)
    sampled: NDArray[np.float32] = depth[rows[:, None], cols]
    return sampled
