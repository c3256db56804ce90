"""CPU rasteriser: Numba kernels in one `torch.autograd.Function`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaussianverse.fitter.rasterize import Drawing
from gaussianverse.fitter.rasterize.binning import bin_pairs, depth_order
from gaussianverse.fitter.rasterize.blending import blend, blend_backward
from gaussianverse.fitter.rasterize.compiled import TILE, f4
from gaussianverse.fitter.rasterize.projection import GRADIENT, RECORD, TILES, project, project_backward
from gaussianverse.fitter.threads import over_range


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
        inputs = [t.detach().contiguous().numpy() for t in (means, quats, scales, opacities, colors)]
        views, Ks, backgrounds = (
            t.detach().contiguous().numpy() for t in (drawing.viewmats, drawing.Ks, drawing.backgrounds)
        )
        width, height, max_alpha = drawing.width, drawing.height, f4(drawing.max_alpha)
        count, n = len(views), len(inputs[0])
        tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
        image = np.empty((count, 4, height, width), np.float32)
        radii = np.empty((count, n, 2), np.int32)
        screen = means2d.detach().numpy()
        kept = []
        for c in range(count):
            record, tiles = np.empty((n, RECORD), np.float32), np.empty((n, TILES), np.int16)
            depths = np.empty(n, np.float32)
            color = inputs[4] if inputs[4].ndim == 2 else inputs[4][c]
            over_range(
                project, n, *inputs[:4], color, views[c], Ks[c], width, height,
                f4(drawing.eps2d), f4(drawing.near_plane), f4(drawing.far_plane), record, tiles, radii[c], screen[c],
                depths,
            )  # fmt: skip
            slots = np.empty((n, 2), np.int32)
            offsets = np.empty(tiles_x * tiles_y + 1, np.int64)
            ends = np.empty((tiles_x * tiles_y, 2), np.int64)
            pairs = bin_pairs(record, tiles, depth_order(depths, tiles), tiles_x, tiles_y, offsets, slots)
            over_range(
                blend, tiles_x * tiles_y, record, pairs, offsets, ends, width, height, tiles_x,
                backgrounds[c], max_alpha, image[c],
            )  # fmt: skip
            kept.append((record, slots, pairs, offsets, ends))
        ctx.kept, ctx.inputs, ctx.views, ctx.drawing, ctx.image = kept, inputs, (views, Ks), drawing, image
        # the kernels store images as planes; gsplat's channels-last shape is a view of them
        planes = torch.from_numpy(image).permute(0, 2, 3, 1)
        result = planes[..., :3], planes[..., 3:], torch.from_numpy(radii)
        ctx.mark_non_differentiable(result[2])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (views, Ks), drawing, inputs, image = ctx.views, ctx.drawing, ctx.inputs, ctx.image
        width, height = drawing.width, drawing.height
        tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
        g_colors, g_alphas = (g.permute(0, 3, 1, 2).contiguous().numpy() for g in gradients[:2])
        totals = [np.zeros_like(x) for x in inputs]
        g_means2d = np.empty((len(image), len(inputs[0]), 2), np.float32)
        for c, (record, slots, pairs, offsets, ends) in enumerate(ctx.kept):
            pair_gradients = np.empty((len(pairs), GRADIENT), np.float32)
            over_range(
                blend_backward, tiles_x * tiles_y, record, pairs, offsets, ends, width, height, tiles_x,
                f4(drawing.max_alpha), image[c], g_colors[c], g_alphas[c, 0], pair_gradients,
            )  # fmt: skip
            over_range(
                project_backward, len(record), record, slots, pair_gradients, *inputs[:3],
                views[c], Ks[c], width, height, *totals[:4],
                totals[4] if totals[4].ndim == 2 else totals[4][c], g_means2d[c],
            )  # fmt: skip
        return (*(torch.from_numpy(x) for x in totals), torch.from_numpy(g_means2d), None)


def rasterize(drawing: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render on the CPU in float32; see `fitter.rasterize.rasterization`, which checks the arguments.

    Raises:
        ValueError: the image has more tiles in a row or column than an int16 counts.
    """
    if max(drawing.width, drawing.height) > TILE * np.iinfo(np.int16).max:
        raise ValueError(
            f"an image has {drawing.width} x {drawing.height} pixels; backend 'cpu' draws sides of at most "
            f"{TILE * np.iinfo(np.int16).max}"
        )
    means2d = torch.zeros((len(drawing.viewmats), len(drawing.means), 2), requires_grad=True)
    image, alpha, radii = _Rasterize.apply(  # type: ignore[no-untyped-call]
        drawing.means, drawing.quats, drawing.scales, drawing.opacities, drawing.colors, means2d, drawing
    )
    return image, alpha, {"means2d": means2d, "radii": radii}
