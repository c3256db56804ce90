"""Fidelity of a stored atlas: the PSNR of its renders against renders of the fit."""

from __future__ import annotations

import numpy as np
import torch

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.metrics import psnr
from gaussianverse.pipeline.run.around import render, viewmats_around

SIZE = 128
"""Width and height in pixels of the renders behind `atlas_psnr` in the tables."""
# the corners of a tetrahedron: every side of an object is visible from at least one
_DIRECTIONS = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)


def atlas_psnr(fit: Gaussians, stored: Gaussians, size: int = SIZE) -> float:
    """PSNR in dB of four renders of `stored` against those of `fit`, on white; 100 if they are equal.

    The cameras depend on the fit alone and the CPU rasteriser renders, so the same Gaussians always give the same
    number. Gaussians that did not fit into the atlas lower it. The renders have `size` x `size` pixels.
    """
    low, high = fit.means.min(0), fit.means.max(0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-3)
    viewmats = torch.from_numpy(viewmats_around(_DIRECTIONS, (low + high) / 2, radius))
    with torch.no_grad():
        shown, expected = (render(gaussians, viewmats, size).clamp(0, 1) for gaussians in (stored, fit))
    return psnr(shown, expected)
