"""L1 and SSIM between a render and its reference in one pass, values and gradients, by a native kernel.

SSIM is that of Wang et al. 2004 with an 11 x 11 Gaussian window of sigma 1.5, no padding and data range 1, as in
`pytorch-msssim`, which is the test's oracle and is used on CUDA and for images under 11 pixels.
"""

from __future__ import annotations

from ctypes import c_double, c_int
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.library import WINDOW, enough

_REACH = WINDOW - 1


def _differing_box(image: NDArray[np.float32], target: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """Rows and columns (y0, y1, x0, x1) outside which image and target [3, H, W] are equal, or None if all are.

    The box is widened by the window's reach and holds a window. If image and target are equal over a whole window,
    SSIM is exactly 1 with zero gradient, so the background around an object costs nothing.
    """
    differing = (image != target).any(0)
    rows, columns = np.flatnonzero(differing.any(1)), np.flatnonzero(differing.any(0))
    if not len(rows):
        return None
    box: list[int] = []
    for found, size in ((rows, image.shape[1]), (columns, image.shape[2])):
        first = max(0, min(int(found[0]) - _REACH, size - WINDOW))
        box += [first, min(size, max(int(found[-1]) + 1 + _REACH, first + WINDOW))]
    return box[0], box[1], box[2], box[3]


def _image(
    image: NDArray[np.float32], target: NDArray[np.float32], slopes: NDArray[np.float32]
) -> tuple[float, float]:
    """Mean |x - y| and mean SSIM of [3, H, W]; the gradient of SSIM's sum is written into zeroed `slopes`."""
    channels, height, width = image.shape
    box, sums = _differing_box(image, target), (c_double * 3)()
    if box is not None:
        arrays = image.ctypes.data, target.ctypes.data, width, height
        enough(library.kernels().gv_photometric(*arrays, (c_int * 4)(*box), 0.0, 0.0, 1.0, slopes.ctypes.data, sums))
    windows = channels * (height - _REACH) * (width - _REACH)
    return sums[0] / image.size, 1.0 + sums[2] / windows


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, render: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = (t.detach().float().permute(0, 3, 1, 2).contiguous() for t in (render, target))
        slopes = torch.zeros_like(images)
        each = [
            _image(image.numpy(), target.numpy(), slope.numpy())
            for image, target, slope in zip(images, targets, slopes, strict=True)
        ]
        ctx.images, ctx.targets, ctx.slopes = images, targets, slopes
        l1, ssim = (sum(values) / len(each) for values in zip(*each, strict=True))
        return torch.tensor(l1, dtype=torch.float32), torch.tensor(ssim, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        images = ctx.images
        count, channels, height, width = images.shape
        l1 = torch.sign(images - ctx.targets) * (gradients[0] / images.numel())
        windows = count * channels * (height - _REACH) * (width - _REACH)
        return (l1 + ctx.slopes * (gradients[1] / windows)).permute(0, 2, 3, 1), None


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
