"""Quality of a fit: PSNR, SSIM and LPIPS of rendered views, always on white."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.rasterize import MAX_ALPHA, rasterization
from gaussianverse.fitter.scene import Scene

BACKGROUND = "white"


@dataclass(frozen=True)
class ViewMetrics:
    """Metrics of each view, in the order of the scene; `lpips` is NaN without a backbone."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    lpips: tuple[float, ...]


def psnr(image: Tensor, reference: Tensor) -> float:
    """PSNR in dB, 10 log10(1 / MSE), of images in [0, 1]; at most 100, so that a mean stays finite."""
    mse = float((image.double() - reference.double()).square().mean())
    return min(100.0, -10 * math.log10(mse)) if mse > 0 else 100.0


def render(
    gaussians: Gaussians,
    scene: Scene,
    index: int,
    backend: str | None,
    background: Tensor,
    max_alpha: float = MAX_ALPHA,
) -> Tensor:
    """Render view `index` of the scene, [H, W, 3], clamped to [0, 1], without gradients."""
    device, g = scene.viewmats.device, gaussians
    with torch.no_grad():
        image, _, _ = rasterization(
            torch.from_numpy(g.means).to(device),
            torch.from_numpy(g.quats).to(device),
            torch.from_numpy(g.scales).to(device),
            torch.from_numpy(g.opacities).to(device),
            torch.from_numpy(g.colors).to(device),
            scene.viewmats[index : index + 1],
            scene.Ks[index : index + 1],
            scene.width,
            scene.height,
            backgrounds=background[None],
            backend=backend,
            max_alpha=max_alpha,
        )
    return image[0].float().clamp(0, 1)


def measure(
    gaussians: Gaussians,
    scene: Scene,
    backend: str | None = None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    max_alpha: float = MAX_ALPHA,
) -> ViewMetrics:
    """Render every view of the scene over white and compare with its reference over white."""
    white = torch.ones(3, device=scene.viewmats.device)
    rows: list[tuple[float, float, float]] = []
    for v in range(len(scene)):
        image = render(gaussians, scene, v, backend, white, max_alpha)
        reference = scene.composited(torch.tensor([v]), white)
        _, ssim = l1_ssim(image[None], reference)
        with torch.no_grad():
            distance = float(lpips(image[None], reference)) if lpips else math.nan
        rows.append((psnr(image, reference[0]), float(ssim), distance))
    return ViewMetrics(*(tuple(column) for column in zip(*rows, strict=True)))
