"""Cameras around an object, and renders of Gaussians from them on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.rasterize import rasterization

FOV = np.radians(40)
"""Angle of view of every camera, in radians."""

Floats = NDArray[np.float64]


def viewmats_around(directions: Floats, centre: NDArray[np.floating], radius: float) -> NDArray[np.float32]:
    """World-to-camera matrices [C, 4, 4] of cameras that just see the whole ball of this centre and radius.

    Args:
        directions: unit vectors from the centre to the cameras, none of them along z, [C, 3].
        centre: of the ball, [3].
        radius: of the ball.
    """
    viewmats = np.zeros((len(directions), 4, 4), np.float32)
    for viewmat, direction in zip(viewmats, directions, strict=True):
        right = np.cross(-direction, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(-direction, right), -direction])
        eye = centre + direction * radius / np.sin(FOV / 2)
        viewmat[:3, :3], viewmat[:3, 3], viewmat[3, 3] = rotation, -rotation @ eye, 1
    return viewmats


def intrinsics(size: int, count: int) -> Tensor:
    """Intrinsics [count, 3, 3] of these cameras, for images of `size` x `size` pixels."""
    focal = size / 2 / np.tan(FOV / 2)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], dtype=torch.float32)
    return K.expand(count, 3, 3)


def render(
    gaussians: Gaussians, viewmats: Tensor, size: int, *, colors: Tensor | None = None, background: float = 1.0
) -> Tensor:
    """Render Gaussians, [C, size, size, 3], without a clamp; differentiable in `colors`.

    Args:
        gaussians: what to render.
        viewmats: world-to-camera matrices, [C, 4, 4].
        size: side of the images in pixels.
        colors: [M, 3] in place of those of `gaussians`.
        background: grey value behind the Gaussians, 0 to 1.
    """
    image, _, _ = rasterization(
        torch.from_numpy(gaussians.means),
        torch.from_numpy(gaussians.quats),
        torch.from_numpy(gaussians.scales),
        torch.from_numpy(gaussians.opacities),
        torch.from_numpy(gaussians.colors) if colors is None else colors,
        viewmats,
        intrinsics(size, len(viewmats)),
        size,
        size,
        backgrounds=torch.full((len(viewmats), 3), background),
        near_plane=1e-3,
        backend="cpu",
    )
    return image
