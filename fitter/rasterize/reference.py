"""Reference rasteriser, the tests' oracle: dense, differentiable, in float64, every Gaussian at every pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gaussianverse.fitter.rasterize import Drawing
from gaussianverse.fitter.rasterize.limits import ALPHA_MIN, EXTENT_MAX, TRANSMITTANCE_MIN


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of wxyz quaternions [N, 4] of any norm."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def project(
    means: Tensor, quats: Tensor, scales: Tensor, view: Tensor, K: Tensor, width: int, height: int, eps2d: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Project to pixel means [N, 2], depths [N] and 2-D covariances [N, 2, 2] of a camera (Zwicker et al. 2002)."""
    x, y, z = (means @ view[:3, :3].T + view[:3, 3]).unbind(-1)
    half = rotation_matrices(quats) * scales[:, None, :]
    covariance = view[:3, :3] @ half @ half.transpose(1, 2) @ view[:3, :3].T
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    u = torch.clamp(x / z, -(cx / fx + margin_x), (width - cx) / fx + margin_x)
    v = torch.clamp(y / z, -(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1).reshape(-1, 2, 3)
    covariance2d = jacobian @ covariance @ jacobian.transpose(1, 2) + eps2d * torch.eye(2, dtype=means.dtype)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), z, covariance2d


def rasterize(drawing: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render in float64; see `fitter.rasterize.rasterization`. Memory is a multiple of 8 N H W bytes."""
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
    tensors = [getattr(drawing, name).double() for name in names]
    means, quats, scales, opacities, colors, viewmats, Ks, backgrounds = tensors
    width, height = drawing.width, drawing.height
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5, torch.arange(width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )  # fmt: skip
    pixels = torch.stack([x.reshape(-1), y.reshape(-1)], -1)
    # one tensor [C, N, 2] for all cameras, since growth needs its gradient
    projected = [
        project(means, quats, scales, view, K, width, height, drawing.eps2d)
        for view, K in zip(viewmats, Ks, strict=True)
    ]
    means2d = torch.stack([p[0] for p in projected])
    if means2d.requires_grad:
        means2d.retain_grad()
    images, alphas, all_radii = [], [], []
    for c, (_, z, covariance2d) in enumerate(projected):
        with torch.no_grad():
            visible = (z > drawing.near_plane) & (z < drawing.far_plane) & (quats != 0).any(-1)
            visible &= (opacities >= ALPHA_MIN) & (opacities < torch.inf)
            extent = torch.sqrt(2 * torch.log(opacities / ALPHA_MIN).clamp(min=0)).clamp(max=EXTENT_MAX)
            sigma = torch.sqrt(torch.diagonal(covariance2d, dim1=1, dim2=2))
            reach = extent[:, None] * sigma
            low = torch.ceil(means2d[c] - reach - 0.5).clamp(min=0)
            high = torch.floor(means2d[c] + reach - 0.5)
            high = torch.minimum(high, torch.tensor([width - 1, height - 1], dtype=torch.float64))
            visible &= (high >= low).all(-1)
            order = torch.argsort(torch.where(visible, z, torch.inf), stable=True)[: int(visible.sum())]
            all_radii.append(torch.where(visible[:, None], torch.ceil(reach), 0.0).to(torch.int32))
        conic = torch.linalg.inv(covariance2d[order])
        delta = pixels[None] - means2d[c][order][:, None]
        sigma_ = 0.5 * torch.einsum("npi,nij,npj->np", delta, conic, delta)
        alpha = (opacities[order][:, None] * torch.exp(-sigma_)).clamp(max=drawing.max_alpha)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0.0)
        # a pixel stops before the Gaussian that would reduce its transmittance to 1e-4
        going = torch.cumprod(1 - alpha.detach(), 0) > TRANSMITTANCE_MIN
        alpha = torch.where(going, alpha, 0.0)
        transmittance = torch.cumprod(1 - alpha, 0)
        before = torch.cat([torch.ones_like(transmittance[:1]), transmittance[:-1]]) if len(order) else alpha
        weights = alpha * before
        rest = transmittance[-1] if len(order) else torch.ones(len(pixels), dtype=torch.float64)
        color = (colors if colors.ndim == 2 else colors[c])[order]
        images.append((weights.T @ color + rest[:, None] * backgrounds[c]).reshape(height, width, 3))
        alphas.append((1 - rest).reshape(height, width, 1))
    return torch.stack(images), torch.stack(alphas), {"means2d": means2d, "radii": torch.stack(all_radii)}
