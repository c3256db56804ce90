"""Downsampling of images by exact area averaging."""

import numpy as np
from numpy.typing import NDArray

_STRIP_PIXELS = 1 << 18  # processed at once


def area_mean(array: NDArray[np.float64], m: int, axis: int) -> NDArray[np.float64]:
    """Average the n cells along `axis` into m <= n equal ones; cells cut by an edge count by share.

    The running sum, linear within cells, is interpolated at the new edges. It avoids a matrix product, since many
    fits share a machine and the threads of a BLAS would compete.
    """
    cells = np.moveaxis(array, axis, 0)
    n = cells.shape[0]
    running = np.concatenate([np.zeros_like(cells[:1]), np.cumsum(cells, axis=0)])
    edges = np.arange(m + 1) * n / m
    below = np.minimum(edges.astype(np.intp), n - 1)
    share = (edges - below).reshape(-1, *[1] * (cells.ndim - 1))
    at_edges = running[below] + share * cells[below]
    return np.moveaxis(np.diff(at_edges, axis=0) * (m / n), 0, axis)


def shrink_rgba(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Shrink uint8 [H, W, 4] with straight alpha to [height, width, 4] by area averaging.

    Colours are averaged premultiplied, so that the hidden colour of transparent pixels has no effect; where the
    mean alpha is 0, the colour is 0. Rows are summed in strips, in the order of `area_mean` over the whole image,
    so that memory beyond the two images stays below about 100 MB.
    """
    H, W = image.shape[:2]
    shrunk = np.empty((height, width, 4), np.uint8)
    edges = np.arange(height + 1) * H / height
    below = np.minimum(edges.astype(np.intp), H - 1)
    share = (edges - below)[:, None, None]
    running, before = np.zeros((1, W, 4)), np.empty((0, W, 4))  # sums of all rows above; the last edge read
    strip = max(1, _STRIP_PIXELS // W)
    for start in range(0, H, strip):
        cells = image[start : start + strip].astype(np.float64)
        cells[..., :3] *= cells[..., 3:] / 255
        sums = np.cumsum(np.concatenate([running, cells]), axis=0)
        first, last = np.searchsorted(below, (start, start + len(cells)))
        rows = below[first:last] - start
        at_edges = np.concatenate([before, sums[rows] + share[first:last] * cells[rows]])
        if len(at_edges) > 1:
            mean = area_mean(np.diff(at_edges, axis=0) * (height / H), width, 1)
            shrunk[last - len(mean) - 1 : last - 1] = _straight(mean)
        running, before = sums[-1:], at_edges[-1:]
    return shrunk


def _straight(mean: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Convert premultiplied means [..., 4] in 0..255 to straight alpha."""
    mean[np.abs(mean) < 1e-6] = 0  # rounding errors of the differences of running sums
    alpha = mean[..., 3:]
    mean[..., :3] *= np.divide(255, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    straight: NDArray[np.uint8] = np.rint(mean).clip(0, 255).astype(np.uint8)
    return straight


def shrink_depth(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Shrink depths or normals, float32 [H, W, ...], to [height, width, ...], taking the sample at the centre of each
    new pixel.

    Averaging across a silhouette would give depths between the object and its background.
    """
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(np.intp)
    cols = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(np.intp)
    sampled: NDArray[np.float32] = depth[rows[:, None], cols]
    return sampled
