"""Fidelity of a stored atlas: the PSNR of its renders against renders of the fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.metrics import psnr
from gaussianverse.fitter.rasterize import rasterization

SIZE = 128
"""Width and height in pixels of the renders behind `atlas_psnr` in the tables."""
_FOV = np.radians(40)
# the corners of a tetrahedron: every side of an object is visible from at least one
_DIRECTIONS = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)


def atlas_psnr(fit: Gaussians, stored: Gaussians, size: int = SIZE) -> float:
    """PSNR in dB of four renders of `stored` against those of `fit`, on white; 100 if they are equal.

    The cameras depend on the fit alone and the CPU rasteriser renders, so the same Gaussians always give the same
    number. Gaussians that did not fit into the atlas lower it. The renders have `size` x `size` pixels.
    """
    low, high = fit.means.min(0), fit.means.max(0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-3)
    viewmats = torch.from_numpy(_viewmats((low + high) / 2, radius))
    return psnr(_render(stored, viewmats, size), _render(fit, viewmats, size))


def _viewmats(centre: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    """World-to-camera matrices [4, 4, 4] of cameras that just see the whole ball of this centre and radius."""
    viewmats = np.zeros((len(_DIRECTIONS), 4, 4), np.float32)
    for viewmat, direction in zip(viewmats, _DIRECTIONS, strict=True):
        right = np.cross(-direction, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(-direction, right), -direction])
        eye = centre + direction * radius / np.sin(_FOV / 2)
        viewmat[:3, :3], viewmat[:3, 3], viewmat[3, 3] = rotation, -rotation @ eye, 1
    return viewmats


def _render(gaussians: Gaussians, viewmats: Tensor, size: int) -> Tensor:
    focal = size / 2 / np.tan(_FOV / 2)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], dtype=torch.float32)
    with torch.no_grad():
        images, _, _ = rasterization(
            torch.from_numpy(gaussians.means),
            torch.from_numpy(gaussians.quats),
            torch.from_numpy(gaussians.scales),
            torch.from_numpy(gaussians.opacities),
            torch.from_numpy(gaussians.colors),
            viewmats,
            K.expand(len(viewmats), 3, 3),
            size,
            size,
            backgrounds=torch.ones(len(viewmats), 3),
            near_plane=1e-3,
            backend="cpu",
        )
    return images.clamp(0, 1)
