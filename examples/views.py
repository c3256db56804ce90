"""Cameras around an atlas, its renders on white, and their PSNR."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussianverse.atlas import unpack_tensor
from gaussianverse.atlas.standard import SplatTensors
from gaussianverse.fitter.rasterize import rasterization

DISTANCE, FIELD_OF_VIEW = 1.8, 40.0
"""Cameras look at the origin from this distance, which shows the unit ball's inner part; in degrees."""
MIN_OPACITY = 1 / 255
"""Fainter Gaussians are padding, for which no network predicts exactly 0, and are not drawn."""
_ELEVATIONS = (0.35, -0.2)


class Cameras(NamedTuple):
    """V cameras, square.

    Attributes:
        viewmats: world to camera, OpenCV, [V, 4, 4].
        Ks: intrinsics in pixels, [V, 3, 3].
        size: side of the images, in pixels.
    """

    viewmats: Tensor
    Ks: Tensor
    size: int

    def to(self, device: torch.device) -> Cameras:
        """The same on another device."""
        return Cameras(self.viewmats.to(device), self.Ks.to(device), self.size)


def orbit(count: int = 8, size: int = 128) -> Cameras:
    """Cameras all around the z axis, from above and below in turn; the same in each call."""
    azimuths = [2 * math.pi * k / count + 0.3 for k in range(count)]
    elevations = [_ELEVATIONS[k % 2] for k in range(count)]
    directions = [
        [math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), math.sin(e)]
        for a, e in zip(azimuths, elevations, strict=True)
    ]
    return _looking(torch.tensor(directions), size)


def random_cameras(count: int, generator: torch.Generator, size: int) -> Cameras:
    """Cameras at random places of a sphere."""
    return _looking(nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1), size)


def _looking(directions: Tensor, size: int) -> Cameras:
    """Cameras that look at the origin from unit directions [V, 3]."""
    forward = -directions
    # z is up, but for cameras that look along it
    along_z = forward[:, 2].abs() > 0.999
    up = torch.where(along_z[:, None], torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    right = nn.functional.normalize(torch.linalg.cross(forward, up), dim=1)
    rotations = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    viewmats = torch.eye(4).repeat(len(directions), 1, 1)
    viewmats[:, :3, :3] = rotations
    viewmats[:, 2, 3] = DISTANCE
    focal = size / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Cameras(viewmats, K.repeat(len(directions), 1, 1), size)


def drawn(atlas: Tensor, points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Render an atlas [16, S, S] in its own units: colours on white [V, s, s, 3] and alphas [V, s, s, 1].

    Differentiable; all cells are drawn, padding included.
    """
    return _on_white(unpack_tensor(atlas, points=points, clamp=True), None, cameras)


@torch.no_grad()
def render_atlas(atlas: Tensor, points: Tensor, cameras: Cameras) -> Tensor:
    """Render an atlas [16, S, S] in its own units on white, [V, s, s, 3] in [0, 1]; faint cells are left out."""
    g = unpack_tensor(atlas.float(), points=points.to(atlas.device), clamp=True)
    return _on_white(g, g.opacities >= MIN_OPACITY, cameras.to(atlas.device))[0].clamp(0, 1)


def _on_white(g: SplatTensors, kept: Tensor | None, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Colours and alphas of some of the Gaussians, None = all, on white."""
    parts = (g.means, g.quats, g.scales, g.opacities, g.colors)
    means, quats, scales, opacities, colors = parts if kept is None else [part[kept] for part in parts]
    viewmats, Ks, size = cameras
    white = torch.ones(len(viewmats), 3, device=means.device)
    colors, alphas, _ = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, size, size, backgrounds=white
    )
    return colors, alphas


def psnr(images: Tensor, references: Tensor) -> float:
    """Mean over views of their PSNR in dB; images in [0, 1], [V, s, s, 3]."""
    errors = (images - references).square().flatten(1).mean(1)
    return float((-10 * torch.log10(errors + 1e-12)).mean())
