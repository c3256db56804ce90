"""gsplat's own torch rasteriser, made to run without CUDA: an oracle independent of this project.

gsplat 1.5 blends in torch through `accumulate`, given the list of (Gaussian, pixel) pairs; the list comes from a
CUDA kernel and two sums from nerfacc. Both are replaced here, by a dense list and by sums in float64.
"""

from __future__ import annotations

import sys
import threading
import types
from typing import Any

import torch
from torch import Tensor

_MODULES = threading.Lock()


def _weights(alphas: Tensor, *, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    """Weights and transmittances of samples that are sorted by ray, then by depth (nerfacc's contract)."""
    log = torch.log1p(-alphas.double())
    running = torch.cumsum(log, 0) - log
    starts = torch.ones_like(ray_indices, dtype=torch.bool)
    starts[1:] = ray_indices[1:] != ray_indices[:-1]
    first = torch.cummax(torch.where(starts, torch.arange(len(log)), 0), 0)[0]
    transmittance = torch.exp(running - running[first])
    return alphas * transmittance, transmittance


def _along_rays(weights: Tensor, values: Tensor | None, *, ray_indices: Tensor, n_rays: int) -> Tensor:
    contributions = weights[:, None] if values is None else weights[:, None] * values
    zeros = torch.zeros((n_rays, contributions.shape[1]), dtype=contributions.dtype)
    return zeros.index_add(0, ray_indices, contributions)


def _stand_in() -> types.ModuleType:
    module = types.ModuleType("nerfacc")
    module.render_weight_from_alpha = _weights  # type: ignore[attr-defined]

    def accumulate_along_rays(
        weights: Tensor, values: Tensor | None = None, ray_indices: Tensor | None = None, n_rays: int = 0
    ) -> Tensor:
        assert ray_indices is not None
        return _along_rays(weights, values, ray_indices=ray_indices, n_rays=n_rays)

    module.accumulate_along_rays = accumulate_along_rays  # type: ignore[attr-defined]
    return module


@torch.no_grad()
def _pairs(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, w: int, h: int
) -> Tensor:
    """Image, pixel and Gaussian of all drawn pairs [3, M], sorted by image, pixel, depth."""
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x.reshape(-1), y.reshape(-1)], -1)
    found = []
    for image in range(len(means2d)):
        visible = (radii[image] > 0).all(-1).nonzero()[:, 0]
        order = visible[torch.argsort(depths[image, visible], stable=True)]
        d, c = pixels[:, None] - means2d[image, order], conics[image, order]
        power = 0.5 * (c[:, 0] * d[..., 0] ** 2 + c[:, 2] * d[..., 1] ** 2) + c[:, 1] * d[..., 0] * d[..., 1]
        alpha = (opacities[image, order] * torch.exp(-power)).clamp(max=0.999)
        drawn = (power >= 0) & (alpha >= 1 / 255)
        drawn &= torch.cumprod(1 - alpha * drawn, 1) > 1e-4
        pixel, place = drawn.nonzero(as_tuple=True)
        found.append(torch.stack([torch.full_like(pixel, image), pixel, order[place]]))
    return torch.cat(found, 1)


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, backgrounds: Tensor,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Images [C, H, W, 3], alphas [C, H, W, 1] and meta, with `means2d` [C, N, 2] and `radii`, by gsplat's code.

    `colors` are [N, 3] or [C, N, 3].
    """
    from gsplat.cuda import _torch_impl as gsplat

    covariances, _ = gsplat._quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, _ = gsplat._fully_fused_projection(
        means, covariances, viewmats, Ks, width, height
    )
    if means2d.requires_grad and torch.is_grad_enabled():
        means2d.retain_grad()
    each = opacities[None].expand(len(viewmats), -1)
    image, pixel, gaussian = _pairs(means2d, conics, each, depths, radii, width, height)
    per_camera = colors[None].expand(len(viewmats), -1, -1) if colors.ndim == 2 else colors
    # gsplat imports nerfacc at each call; threads of one process take turns
    with _MODULES:
        before = sys.modules.get("nerfacc")
        sys.modules["nerfacc"] = _stand_in()
        try:
            out, alphas = gsplat.accumulate(means2d, conics, each, per_camera, gaussian, pixel, image, width, height)
        finally:
            if before is None:
                del sys.modules["nerfacc"]
            else:
                sys.modules["nerfacc"] = before
    return out + backgrounds[:, None, None] * (1 - alphas), alphas, {"means2d": means2d, "radii": radii}
