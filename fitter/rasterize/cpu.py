"""CPU rasteriser: the native kernels in one `torch.autograd.Function`."""

from __future__ import annotations

from ctypes import byref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.library import LANES, Gaussians, Gradients, camera_of, enough
from gaussianverse.fitter.rasterize import Drawing
from gaussianverse.fitter.threads import over_range, threads

TILE = 8
SIDE_MAX = 262_136
"""Longest side of an image, beyond which float32 does not count quarters of a pixel."""
COUNT_MAX = 2**28 - 1


class _View:
    """Lists and records of one camera, from forward to backward; memory is kept for the next."""

    def __init__(self, kernels: Any) -> None:
        self.kernels, self.handle = kernels, kernels.gv_view_new()
        enough(bool(self.handle))

    def __del__(self) -> None:
        self.kernels.gv_view_free(self.handle)


# views that are not in use: their memory is large, and new memory costs page faults
_idle: list[_View] = []


class _Held:
    """A view until the graph that needs it is gone."""

    def __init__(self, kernels: Any) -> None:
        while _idle:
            view = _idle.pop()
            if view.kernels is kernels:
                self.view = view
                return
        self.view = _View(kernels)

    def __del__(self) -> None:
        if len(_idle) < 2:
            _idle.append(self.view)


def _planes(tensor: Tensor, channels: int, rows: int, pitch: int) -> NDArray[np.float32]:
    """Images [C, H, W, channels] as planes [C, channels, rows, pitch]; without a copy if they are so."""
    planar = tensor.permute(0, 3, 1, 2)
    if planar.shape[2:] == (rows, pitch):
        return planar.contiguous().numpy()
    padded = np.zeros((len(planar), channels, rows, pitch), np.float32)
    padded[:, :, : planar.shape[2], : planar.shape[3]] = planar.numpy()
    return padded


class _Rasterize(torch.autograd.Function):
    """One pass over all cameras; it fills `means2d`, which receives the screen gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        means2d: Tensor,
        drawing: Drawing,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernels = library.kernels()
        inputs = [t.detach().float().contiguous().numpy() for t in (means, quats, scales, opacities, colors)]
        views, Ks, backgrounds = (
            t.detach().float().contiguous().numpy() for t in (drawing.viewmats, drawing.Ks, drawing.backgrounds)
        )
        width, height = drawing.width, drawing.height
        count, n = len(views), len(inputs[0])
        groups, tiles = -(-n // LANES), -(-width // TILE) * -(-height // TILE)
        # whole tiles and whole vectors
        image = np.empty((count, 4, -(-height // TILE) * TILE, -(-width // LANES) * LANES), np.float32)
        radii = np.empty((count, n, 2), np.int32)
        screen = means2d.detach().numpy()
        held, slots = [], threads() > 1
        for c in range(count):
            camera = camera_of(
                views[c], Ks[c], width, height, backgrounds[c], eps2d=drawing.eps2d, near_plane=drawing.near_plane,
                far_plane=drawing.far_plane, max_alpha=drawing.max_alpha,
            )  # fmt: skip
            kept = _Held(kernels)
            view = kept.view.handle
            gaussians = _gaussians(inputs, c)
            enough(kernels.gv_view_begin(view, byref(camera), n, slots))
            over_range(
                kernels.gv_project, groups, view, byref(gaussians), screen[c].ctypes.data, radii[c].ctypes.data
            )
            enough(kernels.gv_list_tiles(view))
            over_range(kernels.gv_blend, tiles, view, image[c].ctypes.data)
            held.append((kept, camera))
        ctx.held, ctx.inputs, ctx.image, ctx.kernels, ctx.slots = held, inputs, image, kernels, slots
        # the kernels store images as planes; gsplat's channels-last shape is a view of them
        planes = torch.from_numpy(image)[:, :, :height, :width].permute(0, 2, 3, 1)
        result = planes[..., :3], planes[..., 3:], torch.from_numpy(radii)
        ctx.mark_non_differentiable(result[2])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kernels, inputs, image = ctx.kernels, ctx.inputs, ctx.image
        n, (rows, pitch) = len(inputs[0]), image.shape[2:]
        slopes, alpha_slopes = (_planes(g, k, rows, pitch) for g, k in zip(gradients[:2], (3, 1), strict=True))
        totals = [np.zeros_like(x) for x in inputs]
        g_means2d = np.zeros((len(image), n, 2), np.float32)
        for c, (kept, camera) in enumerate(ctx.held):
            view, gaussians = kept.view.handle, _gaussians(inputs, c)
            tiles = -(-camera.width // TILE) * -(-camera.height // TILE)
            enough(kernels.gv_backward_begin(view))
            # without slots tiles add to the same sums, so one thread takes them in order
            in_ranges = over_range if ctx.slots else _whole
            in_ranges(
                kernels.gv_blend_backward, tiles, view, image[c].ctypes.data, slopes[c].ctypes.data,
                alpha_slopes[c].ctypes.data,
            )  # fmt: skip
            colors = totals[4] if totals[4].ndim == 2 else totals[4][c]
            to = Gradients(*(x.ctypes.data for x in (*totals[:4], colors, g_means2d[c])))
            over_range(kernels.gv_project_backward, -(-n // LANES), view, byref(gaussians), byref(to))
        return (*(torch.from_numpy(x) for x in totals), torch.from_numpy(g_means2d), None)


def _whole(kernel: Any, count: int, *arguments: Any) -> None:
    """Call a kernel for a whole range in this thread."""
    kernel(0, count, *arguments)


def _gaussians(inputs: list[NDArray[np.float32]], camera: int) -> Gaussians:
    """Inputs of the kernels for one camera; they stay in memory as long as `inputs` do."""
    colors = inputs[4] if inputs[4].ndim == 2 else inputs[4][camera]
    return Gaussians(*(x.ctypes.data for x in (*inputs[:4], colors)), len(inputs[0]))


def rasterize(drawing: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render on the CPU in float32; see `fitter.rasterize.rasterization`, which checks the arguments.

    Raises:
        NativeUnavailable: the native kernels cannot be loaded.
        ValueError: the image is too large, or there are too many Gaussians.
    """
    if max(drawing.width, drawing.height) > SIDE_MAX:
        raise ValueError(
            f"an image has {drawing.width} x {drawing.height} pixels; backend 'cpu' draws sides of at most {SIDE_MAX}"
        )
    if len(drawing.means) > COUNT_MAX:
        raise ValueError(f"{len(drawing.means)} Gaussians; backend 'cpu' draws at most {COUNT_MAX}")
    means2d = torch.zeros((len(drawing.viewmats), len(drawing.means), 2), requires_grad=True)
    image, alpha, radii = _Rasterize.apply(  # type: ignore[no-untyped-call]
        drawing.means, drawing.quats, drawing.scales, drawing.opacities, drawing.colors, means2d, drawing
    )
    return image, alpha, {"means2d": means2d, "radii": radii}
