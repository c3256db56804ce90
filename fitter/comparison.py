"""Picture of a fit: references above renders, on white."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
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
    scene = make_scene(chosen, torch.device("cpu"))
    white = torch.ones(3)
    references = scene.composited(torch.arange(len(scene)), white)
    renders = torch.stack([render(gaussians, scene, v, backend, white) for v in range(len(scene))])
    height, width = scene.height + _GAP, scene.width + _GAP
    sheet = np.full((2 * height - _GAP, len(scene) * width - _GAP, 3), 255, np.uint8)
    for row, images in enumerate((references, renders)):
        for column, image in enumerate((images.numpy() * 255).round().astype(np.uint8)):
            top, left = row * height, column * width
            sheet[top : top + scene.height, left : left + scene.width] = image
    sink = BytesIO()
    Image.fromarray(sheet).save(sink, "PNG", optimize=True)
    return sink.getvalue()
