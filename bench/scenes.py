"""Gaussians that resemble a fitted object: opaque, flat, tangent to a torus and an ellipsoid."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def surface(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """means, quats, scales, opacities, colors of `count` Gaussians, sized to cover the surface without holes."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)

    on_torus = int(0.55 * count)
    # rejection sampling makes the density uniform on the torus
    theta, phi = uniform(4 * on_torus, high=math.tau), uniform(4 * on_torus, high=math.tau)
    ring, tube = 0.75, 0.28
    fair = uniform(4 * on_torus) < (ring + tube * torch.cos(phi)) / (ring + tube)
    theta, phi = theta[fair][:on_torus], phi[fair][:on_torus]
    out = torch.stack([phi.cos() * theta.cos(), phi.cos() * theta.sin(), phi.sin()], 1)
    torus = torch.stack([ring * theta.cos(), ring * theta.sin(), 0 * theta], 1) + tube * out
    ball = torch.randn((count - on_torus, 3), generator=g, dtype=torch.float64)
    ball = ball / ball.norm(dim=1, keepdim=True)
    means = torch.cat([torus, ball * torch.tensor([0.5, 0.5, 0.7], dtype=torch.float64)])
    normals = torch.cat([out, ball])
    area = 4 * math.pi**2 * ring * tube + 4 * math.pi * 0.25 * 1.25
    spacing = math.sqrt(area / count)
    tangential = 0.8 * spacing * uniform(count, 2, low=0.6, high=1.4)
    scales = torch.cat([tangential, torch.full((count, 1), 0.25 * spacing, dtype=torch.float64)], 1)
    # the shortest rotation of z onto the normal
    quats = torch.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], 0 * normals[:, 0]], 1) + 1e-6
    colors = 0.5 + 0.5 * torch.sin(7 * means + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    opacities = uniform(count, low=0.85, high=0.99)
    order = torch.randperm(count, generator=g)
    tensors = (t[order].float().contiguous() for t in (means, quats, scales, opacities, colors))
    means_, quats_, scales_, opacities_, colors_ = tensors
    return means_, quats_, scales_, opacities_, colors_


def camera(size: int) -> tuple[Tensor, Tensor]:
    """viewmats [1, 4, 4] and Ks [1, 3, 3] of a camera with the whole object in its `size` x `size` image."""
    azimuth, elevation, distance = 0.6, 0.5, 3.6
    eye = distance * torch.tensor(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    forward = -eye / eye.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    view = torch.eye(4)
    view[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    view[:3, 3] = -view[:3, :3] @ eye
    focal = 0.5 * size / math.tan(math.radians(20))
    return view[None], torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]])
