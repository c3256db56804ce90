"""A picture of how good a fit is: references above, renders below, on white."""

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
    """Up to six of the views, evenly spaced, over their renders, as a PNG file.

    Args:
        views: at least one; pass the held-out ones for an honest picture.
        gaussians: the fit.
        backend: of the rasteriser; None chooses by device, which is the CPU here.
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
