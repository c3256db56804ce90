"""Fidelity of a stored atlas: the PSNR of its renders, against renders of the fit and against the object's views."""

from __future__ import annotations

import numpy as np
import torch

from gaussianverse import atlas
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.around import render, viewmats_around
from gaussianverse.fitter.config import FitConfig, ReduceConfig
from gaussianverse.fitter.fit import Fit, measure_published
from gaussianverse.fitter.metrics import psnr
from gaussianverse.fitter.reduce import reduce
from gaussianverse.pipeline.dataset.members import atlas_array

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


def atlas_heldout_psnr(fit: Fit, config: FitConfig, into: AtlasConfig, reduction: ReduceConfig) -> float:
    """Mean PSNR in dB, on white, of what an atlas of this fit holds, on the views that the fit's own `psnr` is of.

    An atlas of float32 changes a position by 1e-7 at most, so where all Gaussians fit into it, this is the fit's
    `psnr` and nothing is rendered. In float16, what is stored depends on each Gaussian's cell, so the atlas is made.

    Args:
        fit: the fit.
        config: its configuration.
        into: configuration of the atlas.
        reduction: how Gaussians are reduced to its cells.

    Returns:
        The PSNR; -1 if an atlas cannot be made, for which the stage that makes it gives the reason.
    """
    try:
        stored = reduce(fit.gaussians, into.size**2, reduction.rule)
        if into.dtype != "float32":
            made = atlas.pack(stored, into)
            stored = atlas.unpack(atlas_array(made.to_bytes(), into), into)
    except AtlasError:
        return -1.0
    if stored is fit.gaussians:
        return float(fit.stats["psnr"])
    metrics = measure_published(stored, fit.prepared, str(fit.stats["backend"]), config.max_alpha)
    return float(np.mean(metrics.psnr))
