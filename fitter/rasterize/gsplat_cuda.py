"""CUDA rasteriser: gsplat."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from gsplat import rasterization
from torch import Tensor

from gaussianverse.fitter.rasterize import Drawing, gsplat_build


def rasterize(drawing: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render with gsplat; see `fitter.rasterize.rasterization`. Keeping all of gsplat's `meta` would leak memory.

    Raises:
        BackendUnavailable: gsplat's kernels cannot be built or loaded here.
        ValueError: `max_alpha` is not the 0.999 that gsplat 1.5 has compiled in.
    """
    if drawing.max_alpha != 0.999:
        raise ValueError(
            f"max_alpha is {drawing.max_alpha}, expected 0.999 for gsplat 1.5; use backend 'cpu' or 'reference'"
        )
    gsplat_build.extension()
    arguments = {f.name: getattr(drawing, f.name) for f in fields(drawing) if f.name != "max_alpha"}
    images, alphas, info = rasterization(**arguments, packed=False)
    means2d = info["means2d"]
    if means2d.requires_grad and torch.is_grad_enabled():
        means2d.retain_grad()
    return images, alphas, {"means2d": means2d, "radii": info["radii"]}
