"""Evaluation of samples: whether they are objects at all, and how well they match their captions (CLIP score)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gaussianverse.atlas import unpack_tensor
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.views import MIN_OPACITY
from gaussianverse.fitter.vision import import_torchvision

ClipScore = Callable[[Sequence[Tensor], Sequence[str]], list[float]]
"""Scores of N captions with V images each, [V, s, s, 3] in [0, 1]."""
_GRID = 32
_TOUCHING = np.ones((3, 3, 3), np.int8)


def validity(atlas: Tensor, points: Tensor) -> dict[str, float]:
    """Whether an atlas [16, S, S] in its own units is an object.

    Args:
        atlas: as sampled.
        points: sphere points, [S, S, 3].

    Returns:
        `finite`: share of values that are finite. `live`: share of cells whose Gaussian is visible. `connected`:
        share of the visible Gaussians in the largest connected part, where neighbours are centres in the same or
        touching cubes of a grid: 32 along the longest side, or fewer, of twice the median of the largest scales.
        Compare with training objects: a flock is in parts, too.
    """
    finite = float(atlas.isfinite().float().mean())
    found = unpack_tensor(atlas.float().nan_to_num().cpu(), points=points.cpu(), clamp=True)
    live = found.opacities >= MIN_OPACITY
    centers = found.means[live].numpy().astype(np.float64)
    extents = found.scales[live].amax(dim=1).numpy()
    return {"finite": finite, "live": float(live.float().mean()), "connected": _connected(centers, extents)}


def _connected(centers: Any, extents: Any) -> float:
    """Share of Gaussians, by centres [N, 3] and extents [N], in the largest connected part; 0 if there are none."""
    if not len(centers):
        return 0.0
    low = centers.min(axis=0)
    side = max(float((centers.max(axis=0) - low).max()) / _GRID, 2 * float(np.median(extents)), 1e-9)
    cells = np.minimum(((centers - low) / side).astype(int), _GRID - 1)
    counts = np.zeros((_GRID,) * 3, int)
    np.add.at(counts, tuple(cells.T), 1)
    labels, n_parts = ndimage.label(counts > 0, _TOUCHING)
    sizes = ndimage.sum_labels(counts, labels, range(1, n_parts + 1))
    return float(np.max(sizes) / len(centers))


def clip_score(folder: Path, device: torch.device) -> ClipScore:
    """Load a CLIP model: its score is 100 times the cosine of image and caption, at least 0, the mean over views.

    It is transformers' own model and preprocessing. torchmetrics' CLIPScore computes the same number with it, but
    takes names of a few models only, no folder.

    Args:
        folder: as transformers saves it, with config.json, weights, tokenizer and preprocessor_config.json.
        device: where to run it.

    Raises:
        TrainingError: the folder has no such model.
    """
    import_torchvision()
    from transformers import CLIPModel, CLIPProcessor

    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder}: no {name}: pass a folder of a CLIP model, as transformers saves it")
    model: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
    model = model.to(device).eval()
    processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def score(images: Sequence[Tensor], captions: Sequence[str]) -> list[float]:
        scores = []
        for views, caption in zip(images, captions, strict=True):
            arrays = list((views.cpu() * 255).round().to(torch.uint8).numpy())
            inputs = processor(text=[caption], images=arrays, return_tensors="pt", padding=True, truncation=True)
            made = model(**inputs.to(device))
            cosines = torch.nn.functional.cosine_similarity(made.image_embeds, made.text_embeds)
            scores.append(float((100 * cosines).clamp(min=0).mean()))
        return scores

    return score
