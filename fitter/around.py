"""Cameras around an object, and renders of Gaussians from them on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.frame import Frame
from gaussianverse.fitter.rasterize import rasterization

FOV = np.radians(40)
"""Angle of view of every camera, in radians."""

# the share of positions at either end that cameras may leave out, so that strays do not shrink the object
_STRAYS = 0.005

Floats = NDArray[np.float64]


def ball_of(gaussians: Gaussians) -> Frame:
    """The frame in which an object fills the unit ball about the origin, but for a few strays."""
    low, high = np.quantile(gaussians.means.astype(np.float64), [_STRAYS, 1 - _STRAYS], axis=0)
    radius = max(float(np.linalg.norm(high - low)) / 2, float(np.median(gaussians.scales)), 1e-30)
    return Frame((low + high) / 2, radius)


def directions_around(count: int, turn: float = 0.0) -> Floats:
    """Unit vectors [count, 3], evenly on the sphere, none along z; `turn` rotates them about z, in radians."""
    k = np.arange(count)
    z, azimuth = 1 - (2 * k + 1) / count, k * np.pi * (3 - np.sqrt(5)) + turn
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=-1)


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
    return render_with_alpha(gaussians, viewmats, size, colors=colors, background=background)[0]


def render_with_alpha(
    gaussians: Gaussians, viewmats: Tensor, size: int, *, colors: Tensor | None = None, background: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Render Gaussians as `render` does; returns the images and their alpha, [C, size, size, 1]."""
    image, alpha, _ = rasterization(
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
    return image, alpha
