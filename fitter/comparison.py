"""Picture of a fit: references above renders, on white."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.metrics import render
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

_MOST = 6
_GAP = 4


def comparison(views: Views, gaussians: Gaussians, backend: str | None = None) -> bytes:
    """Draw up to six evenly spaced views above their renders, as a PNG file.

    Args:
        views: at least one; held-out views show how the fit generalises.
        gaussians: the fit.
        backend: backend of the rasteriser; None means "cpu".
    """
    chosen = views[np.unique(np.linspace(0, len(views) - 1, min(_MOST, len(views))).round().astype(np.intp))]
    pictures = drawn(chosen, [gaussians], backend)
    height, width = chosen.height + _GAP, chosen.width + _GAP
    sheet = np.full((2 * height - _GAP, len(chosen) * width - _GAP, 3), 255, np.uint8)
    for row, images in enumerate(pictures):
        for column, image in enumerate(images):
            top, left = row * height, column * width
            sheet[top : top + chosen.height, left : left + chosen.width] = image
    sink = BytesIO()
    Image.fromarray(sheet).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def drawn(views: Views, fits: Sequence[Gaussians], backend: str | None = None) -> list[NDArray[np.uint8]]:
    """The views themselves, and then the render of each of `fits` from their cameras, over white, [V, H, W, 3] each.

    Args:
        views: at least one.
        fits: Gaussians in the world of the views.
        backend: backend of the rasteriser; None means "cpu".
    """
    scene = make_scene(views, torch.device("cpu"))
    white = torch.ones(3)
    pictures = [scene.composited(torch.arange(len(scene)), white)]
    pictures += [torch.stack([render(g, scene, v, backend, white) for v in range(len(scene))]) for g in fits]
    return [(images.numpy() * 255).round().astype(np.uint8) for images in pictures]
