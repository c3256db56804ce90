"""What a sampled atlas looks like: a sheet of its channels, renders from four sides, and its Gaussians as a PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gaussianverse.atlas import AtlasConfig, Gaussians, unpack_tensor
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.atlas.picture import sheet
from gaussianverse.examples.views import MIN_OPACITY, orbit, render_atlas

SIDES = 4


def gaussians_of(atlas: Tensor, points: Tensor) -> Gaussians:
    """Visible Gaussians of an atlas [16, S, S] in its own units; there may be none. NaN counts as 0."""
    found = unpack_tensor(atlas.cpu().float().nan_to_num(), points=points.cpu(), clamp=True)
    visible = found.opacities >= MIN_OPACITY
    values = {n: getattr(found, n)[visible].numpy() for n in ("means", "scales", "opacities", "colors")}
    return Gaussians(quats=canonical_quats(found.quats[visible].numpy()), **values)


def write_pictures(folder: Path, name: str, atlas: Tensor, points: Tensor, size: int = 256) -> Tensor:
    """Write `name.png` (channels), `name-views.png` (four sides) and, if anything is visible, `name.ply`.

    Args:
        folder: made if it is not there.
        name: beginning of the files' names.
        atlas: in its own units, [16, S, S].
        points: sphere points, [S, S, 3].
        size: side of a render in pixels.

    Returns:
        The renders side by side, uint8 [size, 4 * size, 3].
    """
    folder.mkdir(parents=True, exist_ok=True)
    atlas = atlas.float().nan_to_num().cpu()
    config = AtlasConfig(size=int(atlas.shape[1]))
    (folder / f"{name}.png").write_bytes(sheet(atlas.permute(1, 2, 0).numpy(), config, points.cpu().numpy()))
    views = torch.cat(list(render_atlas(atlas, points.cpu(), orbit(SIDES, size))), dim=1)
    pixels = (views * 255).round().to(torch.uint8)
    Image.fromarray(np.asarray(pixels)).save(folder / f"{name}-views.png")
    gaussians = gaussians_of(atlas, points)
    if len(gaussians):
        (folder / f"{name}.ply").write_bytes(write_ply(gaussians))
    return pixels
