"""The yardstick: a simple tiled rasteriser in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from gaussianverse.fitter.rasterize.reference import project


def rasterize(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, view: Tensor, K: Tensor,
    size: int, background: Tensor, tile: int = 16,
) -> Tensor:  # fmt: skip
    """RGB and alpha [size, size, 4] of one camera; `size` is a multiple of `tile`."""
    means2d, depths, covariances = project(means, quats, scales, view, K, size, size, 0.3)
    conics = torch.linalg.inv(covariances)
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log(opacities * 255).clamp(min=0))
        reach = extent[:, None] * torch.sqrt(torch.diagonal(covariances, dim1=1, dim2=2))
        order = torch.argsort(depths)
    means2d, conics, opacities, colors, reach = (t[order] for t in (means2d, conics, opacities, colors, reach))
    at = means2d.detach()
    within = torch.arange(tile, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(within, within, indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    rows = []
    for top in range(0, size, tile):
        in_row = ((at[:, 1] + reach[:, 1] >= top) & (at[:, 1] - reach[:, 1] <= top + tile)).nonzero()[:, 0]
        row = []
        for left in range(0, size, tile):
            ax, rx = at[in_row, 0], reach[in_row, 0]
            index = in_row[(ax + rx >= left) & (ax - rx <= left + tile)]
            if not len(index):
                row.append(torch.cat([background.expand(tile, tile, 3), torch.zeros(tile, tile, 1)], -1))
                continue
            dx = means2d[index, 0:1] - (x + left)
            dy = means2d[index, 1:2] - (y + top)
            c = conics[index]
            power = 0.5 * (c[:, 0, 0, None] * dx * dx + c[:, 1, 1, None] * dy * dy) + c[:, 0, 1, None] * dx * dy
            alpha = (opacities[index][:, None] * torch.exp(-power)).clamp(max=0.999)
            alpha = alpha * (alpha.detach() >= 1 / 255)
            alpha = alpha * (torch.cumprod(1 - alpha.detach(), 0) > 1e-4)
            after = torch.cumprod(1 - alpha, 0)
            weights = alpha * torch.cat([torch.ones_like(after[:1]), after[:-1]])
            covered = weights.sum(0)[:, None]
            pixels = torch.cat([weights.T @ colors[index] + (1 - covered) * background, covered], -1)
            row.append(pixels.reshape(tile, tile, 4))
        rows.append(torch.cat(row, 1))
    return torch.cat(rows, 0)
