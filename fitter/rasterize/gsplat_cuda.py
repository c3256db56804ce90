"""CUDA rasteriser: gsplat."""

from __future__ import annotations

from typing import Any

import torch
from gsplat import rasterization
from torch import Tensor

from gaussianverse.fitter.rasterize import gsplat_build


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    backgrounds: Tensor,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    max_alpha: float,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render with gsplat; see `fitter.rasterize.rasterization`. Keeping all of gsplat's `meta` would leak memory.

    Raises:
        BackendUnavailable: gsplat's kernels cannot be built or loaded here.
        ValueError: `max_alpha` is not the 0.999 that gsplat 1.5 has compiled in.
    """
    if max_alpha != 0.999:
        raise ValueError(
            f"max_alpha is {max_alpha}, expected 0.999 for gsplat 1.5; use backend 'cpu' or 'reference'"
        )
    gsplat_build.extension()
    images, alphas, info = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height,
        near_plane=near_plane, far_plane=far_plane, eps2d=eps2d, backgrounds=backgrounds, packed=False,
    )  # fmt: skip
    means2d = info["means2d"]
    if means2d.requires_grad and torch.is_grad_enabled():
        means2d.retain_grad()
    return images, alphas, {"means2d": means2d, "radii": info["radii"]}
