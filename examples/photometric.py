"""The paper's photometric term: renders of predicted atlases against views of their objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gaussianverse.atlas import AtlasDataset
from gaussianverse.atlas.reader.loader import AtlasBatch
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.views import Cameras, drawn, random_cameras
from gaussianverse.fitter.lpips import LpipsUnavailable, load_lpips

L1_WEIGHT, MASK_WEIGHT, LPIPS_WEIGHT = 10.0, 1.0, 1.0
VIEWS, RENDERS = "views", "renders"
Lpips = Callable[[Tensor, Tensor], Tensor]
"""Distance of two images [B, H, W, 3]."""


@dataclass(frozen=True)
class PhotometricConfig:
    """The photometric term of a training.

    Attributes:
        weight: of the term; 0 = none.
        references: "views" of the dataset, or "renders" of the object's own atlas, whose quality is that of the fit.
        views: views of an object in a step.
        objects: objects of a batch that are rendered, on each rank.
        size: side of renders of the object's own atlas, in pixels; views of the dataset have theirs.
        lpips_weights: VGG's weights for an LPIPS term; None = no such term.
    """

    weight: float = 0.0
    references: str = VIEWS
    views: int = 4
    objects: int = 2
    size: int = 128
    lpips_weights: Path | None = None

    def __post_init__(self) -> None:
        if self.weight < 0 or min(self.views, self.objects, self.size) < 1:
            raise TrainingError(f"{self}: expected a weight of at least 0, and at least one view, object and pixel")
        if self.references not in (VIEWS, RENDERS):
            raise TrainingError(f"photometric references {self.references!r}: expected {VIEWS!r} or {RENDERS!r}")
        if self.lpips_weights is not None and not self.weight:
            raise TrainingError(
                "lpips_weights without a photometric weight have no effect: set one (--photometric 1), or leave "
                "them out"
            )

    def load_lpips(self, device: torch.device) -> Lpips | None:
        """Load LPIPS, if it is asked for; TrainingError if its weights cannot be read."""
        if self.lpips_weights is None:
            return None
        try:
            return load_lpips("vgg", self.lpips_weights, device)[0]
        except LpipsUnavailable as error:
            raise TrainingError(f"{self.lpips_weights}: not the weights of LPIPS's VGG: {error}") from error

    @property
    def views_read(self) -> int | bool:
        """`views=` of the AtlasDataset that it needs."""
        return self.views if self.weight and self.references == VIEWS else False

    def check_count(self, dataset: AtlasDataset) -> None:
        """Raise TrainingError if it wants views that the dataset does not have."""
        if self.views_read and dataset.catalogue.n_views < self.views:
            raise TrainingError(
                f"{dataset.catalogue.url}: objects have {dataset.catalogue.n_views} reference views, the photometric "
                f"term wants {self.views}: build the dataset with --set run.views={self.views}, or compare with "
                "renders of the atlases (--photometric-references renders)"
            )

    def check(self, dataset: AtlasDataset) -> None:
        """Raise TrainingError if it wants views that the dataset does not have, or that are not read."""
        self.check_count(dataset)
        if self.views_read and dataset.form["views"][0] < self.views:
            raise TrainingError(f"{dataset.catalogue.url}: read it with views={self.views}, for the photometric term")


class References(NamedTuple):
    """V views of an object: colours on white [V, s, s, 3], alphas [V, s, s, 1], and their cameras."""

    colors: Tensor
    alphas: Tensor
    cameras: Cameras


def given_views(batch: AtlasBatch, chosen: int, count: int, device: torch.device) -> References:
    """The first views of a batch's object `chosen`; a dataset read with `views=count` has drawn them."""
    rgba = batch["views"][chosen, :count].permute(0, 2, 3, 1).to(device)
    rgb, alphas = rgba[..., :3], rgba[..., 3:]
    viewmats, Ks = (batch[name][chosen, :count].to(device) for name in ("viewmats", "Ks"))
    return References(rgb * alphas + 1 - alphas, alphas, Cameras(viewmats, Ks, rgba.shape[1]))


@torch.no_grad()
def rendered_views(atlas: Tensor, points: Tensor, count: int, size: int, generator: torch.Generator) -> References:
    """Render an atlas [16, S, S] in its own units from random cameras."""
    cameras = random_cameras(count, generator, size).to(atlas.device)
    return References(*drawn(atlas, points, cameras), cameras)


def photometric_loss(predicted: Tensor, points: Tensor, references: References, lpips: Lpips | None) -> Tensor:
    """L1, mask and LPIPS loss between renders of an atlas [16, S, S] in its own units and views of its object."""
    colors, alphas = drawn(predicted, points, references.cameras)
    loss = L1_WEIGHT * (colors - references.colors).abs().mean()
    loss = loss + MASK_WEIGHT * (alphas - references.alphas).abs().mean()
    return loss if lpips is None else loss + LPIPS_WEIGHT * lpips(colors, references.colors)
