"""L1 and SSIM between a render and its reference in one pass, values and gradients, in Numba.

SSIM is that of Wang et al. 2004 with an 11 x 11 Gaussian window of sigma 1.5, no padding and data range 1, as in
`pytorch-msssim`, which is the test's oracle and is used on CUDA and for images under 11 pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from gaussianverse.atlas.compiled import kernel
from gaussianverse.fitter.rasterize.compiled import OPTIONS, f4
from gaussianverse.fitter.threads import over_range

WINDOW = 11
_REACH = WINDOW - 1
_SIGMA = 1.5
_taps = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * _SIGMA**2))
TAPS = (_taps / _taps.sum()).astype(np.float32)
C1, C2 = f4(0.01**2), f4(0.03**2)


@kernel(**OPTIONS)
def _differing_box(image: Any, target: Any) -> Any:
    """Rows and columns (y0, y1, x0, x1) outside which image and target [3, H, W] are equal."""
    channels, height, width = image.shape
    y0, y1, x0, x1 = height, 0, width, 0
    for c in range(channels):
        for y in range(height):
            first, last = width, -1
            for x in range(width):
                if image[c, y, x] != target[c, y, x]:
                    first = min(first, x)
                    last = x
            if last >= 0:
                y0, y1 = min(y0, y), max(y1, y + 1)
                x0, x1 = min(x0, first), max(x1, last + 1)
    return y0, y1, x0, x1


@njit(inline="always", **OPTIONS)
def _plane(image: Any, target: Any, slope: Any, g_l1: Any, g_ssim: Any) -> Any:
    """Sums of |x - y| and of SSIM - 1 over one channel [H, W]; `slope` is scratch [3, H - 10, W - 10].

    Writes the gradients of the two sums with respect to the image to g_l1 and g_ssim [H, W].
    """
    height, width = image.shape
    rows, columns = height - _REACH, width - _REACH
    blurred = np.empty((5, width), np.float32)
    # float64 totals: a sum of 250,000 terms near 1 loses digits in float32
    l1, ssim = 0.0, 0.0
    for y in range(rows):
        for x in range(width):
            a0, a1, a2, a3, a4 = f4(0), f4(0), f4(0), f4(0), f4(0)
            for k in range(WINDOW):
                p, q, tap = image[y + k, x], target[y + k, x], TAPS[k]
                tp, tq = tap * p, tap * q
                a0 += tp
                a1 += tq
                a2 += tp * p
                a3 += tq * q
                a4 += tp * q
            blurred[0, x], blurred[1, x], blurred[2, x], blurred[3, x], blurred[4, x] = a0, a1, a2, a3, a4
        row = f4(0)
        for x in range(columns):
            mu_x, mu_y, xx, yy, xy = f4(0), f4(0), f4(0), f4(0), f4(0)
            for k in range(WINDOW):
                tap = TAPS[k]
                mu_x += tap * blurred[0, x + k]
                mu_y += tap * blurred[1, x + k]
                xx += tap * blurred[2, x + k]
                yy += tap * blurred[3, x + k]
                xy += tap * blurred[4, x + k]
            cross, squares = mu_x * mu_y, mu_x * mu_x + mu_y * mu_y
            top_mean, low_mean = f4(2) * cross + C1, squares + C1
            top_cov, low_cov = f4(2) * (xy - cross) + C2, (xx + yy - squares) + C2
            scale = f4(1) / (low_mean * low_cov)
            value = top_mean * top_cov * scale
            row += value - f4(1)
            d_top_mean, d_top_cov = top_cov * scale, top_mean * scale
            d_low_mean, d_low_cov = -value / low_mean, -value / low_cov
            slope[0, y, x] = f4(2) * (mu_y * (d_top_mean - d_top_cov) + mu_x * (d_low_mean - d_low_cov))
            slope[1, y, x] = f4(2) * d_low_cov
            slope[2, y, x] = f4(2) * d_top_cov
        ssim += float(row)
    spread = np.empty((3, width + 2 * _REACH), np.float32)
    for y in range(height):
        spread[:] = f4(0)
        for k in range(max(0, y - rows + 1), min(WINDOW, y + 1)):
            tap = TAPS[k]
            for x in range(columns):
                spread[0, x + _REACH] += tap * slope[0, y - k, x]
                spread[1, x + _REACH] += tap * slope[1, y - k, x]
                spread[2, x + _REACH] += tap * slope[2, y - k, x]
        row = f4(0)
        for x in range(width):
            d_mean, d_square, d_cross = f4(0), f4(0), f4(0)
            for k in range(WINDOW):
                tap = TAPS[k]
                d_mean += tap * spread[0, x + _REACH - k]
                d_square += tap * spread[1, x + _REACH - k]
                d_cross += tap * spread[2, x + _REACH - k]
            p, q = image[y, x], target[y, x]
            g_ssim[y, x] = d_mean + p * d_square + q * d_cross
            difference = p - q
            row += abs(difference)
            g_l1[y, x] = f4(1) if difference > f4(0) else (f4(-1) if difference < f4(0) else f4(0))
        l1 += float(row)
    return l1, ssim


@kernel(**OPTIONS)
def _planes(
    first: Any, last: Any, image: Any, target: Any, box: Any, slopes: Any, sums: Any, g_l1: Any, g_ssim: Any
) -> None:
    """Sums [3, 2] and gradients of channels first to last of [3, H, W], within the box."""
    y0, y1, x0, x1 = box
    for c in range(first, last):
        l1, ssim = _plane(
            image[c, y0:y1, x0:x1], target[c, y0:y1, x0:x1], slopes[c], g_l1[c, y0:y1, x0:x1], g_ssim[c, y0:y1, x0:x1]
        )
        sums[c, 0], sums[c, 1] = l1, ssim


def _image(image: Any, target: Any, g_l1: Any, g_ssim: Any) -> tuple[float, float]:
    """Mean |x - y| and mean SSIM of [3, H, W]; the gradients of their sums are written into zeroed arrays.

    If image and target are equal over a whole window, SSIM is exactly 1 with zero gradient. So only the box in
    which they differ, widened by the window's reach, is computed; the background around an object costs nothing.
    """
    channels, height, width = image.shape
    y0, y1, x0, x1 = _differing_box(image, target)
    sums = np.zeros((channels, 2))
    if y1 > y0:
        y0, x0 = max(0, y0 - _REACH), max(0, x0 - _REACH)
        y1, x1 = min(height, y1 + _REACH), min(width, x1 + _REACH)
        # the box must hold a window
        y0, x0 = min(y0, height - WINDOW), min(x0, width - WINDOW)
        y1, x1 = max(y1, y0 + WINDOW), max(x1, x0 + WINDOW)
        slopes = np.empty((channels, 3, y1 - y0 - _REACH, x1 - x0 - _REACH), np.float32)
        over_range(_planes, channels, image, target, (y0, y1, x0, x1), slopes, sums, g_l1, g_ssim)
    l1, ssim = sums.sum(axis=0)
    count = channels * (height - _REACH) * (width - _REACH)
    return float(l1) / (channels * height * width), 1.0 + float(ssim) / count


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, render: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        planes = render.detach().permute(0, 3, 1, 2)
        targets = target.detach().permute(0, 3, 1, 2)
        count, channels, height, width = planes.shape
        g_l1 = np.zeros((count, channels, height, width), np.float32)
        g_ssim = np.zeros_like(g_l1)
        sums = [
            _image(planes[c].contiguous().numpy(), targets[c].contiguous().numpy(), g_l1[c], g_ssim[c])
            for c in range(count)
        ]
        ctx.slopes = (
            torch.from_numpy(g_l1) / float(g_l1.size),
            torch.from_numpy(g_ssim) / float(count * channels * (height - _REACH) * (width - _REACH)),
        )
        l1, ssim = (sum(s[k] for s in sums) / count for k in (0, 1))
        return torch.tensor(l1, dtype=torch.float32), torch.tensor(ssim, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        l1, ssim = ctx.slopes
        return (gradients[0] * l1 + gradients[1] * ssim).permute(0, 2, 3, 1), None


def l1_ssim(render: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute difference and mean SSIM of images [C, H, W, 3] in [0, 1]; differentiable in `render`.

    An axis under 11 pixels is not blurred, as in pytorch-msssim.
    """
    if render.device.type == "cpu" and min(render.shape[1:3]) >= WINDOW:
        l1, ssim = _Fused.apply(render, target)  # type: ignore[no-untyped-call]
        return l1, ssim
    from pytorch_msssim import ssim as reference_ssim

    # pytorch-msssim drops axes of one pixel; repeating the row keeps the mean
    twice = [1, *(2 if n == 1 else 1 for n in render.shape[1:3]), 1]
    planes, targets = render.repeat(twice).permute(0, 3, 1, 2), target.repeat(twice).permute(0, 3, 1, 2)
    return (render - target).abs().mean(), reference_ssim(planes, targets, data_range=1.0, win_size=WINDOW)
