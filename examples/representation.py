"""What a network sees of an atlas: standardised values, logarithms of scales, and sphere points as further inputs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gaussianverse.atlas import AtlasDataset
from gaussianverse.atlas.dataset_format import CHANNELS, MEAN, POINTS, SCALE, STD
from gaussianverse.examples.errors import TrainingError

GROUPS = MappingProxyType(
    {
        "offset": (0, 1, 2),
        "opacity": (3, 7, 11),
        "color": (4, 5, 6),
        "scale": (8, 9, 10),
        "quaternion": (12, 13, 14, 15),
    }
)
"""Channels of an atlas by group; opacity has three copies."""
MIN_SCALE, MAX_SCALE = 2e-4, 1.0
"""Range of scales whose logarithm is learnt, in units of the object's world; scales outside are clamped."""
_FILE = "representation.safetensors"
_SAMPLED = 256
# a channel that never varies, as in a dataset of one object, is not divided by 0
_TINY = 1e-6


@dataclass(frozen=True)
class RepresentationConfig:
    """How atlases become what a network sees. The defaults are what a prototype learned best with.

    Attributes:
        per_pixel: standardise by mean and deviation of each pixel and channel, as the paper does; else of each
            channel.
        floor: a pixel's deviation is at least this times the mean deviation of its channel, so that pixels that
            hardly vary in the dataset do not magnify what a network gets wrong there.
        log_scale: learn the logarithm of scales, which are then above 0 whatever a network predicts.
        sphere_points: give the network the sphere point of each cell as three further channels.
    """

    per_pixel: bool = True
    floor: float = 0.5
    log_scale: bool = True
    sphere_points: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise TrainingError(f"floor {self.floor}: expected 0 to 1")


class Representation(nn.Module):
    """Map atlases [.., 16, S, S] to what the network sees, and back by `inverse`.

    Args:
        config: how.
        mean, std: of what the network sees, [16, S, S].
        points: sphere point of each cell, [S, S, 3].
        digest: of the dataset's statistics that mean and std were made from.
    """

    mean: Tensor
    std: Tensor
    points: Tensor

    def __init__(self, config: RepresentationConfig, mean: Tensor, std: Tensor, points: Tensor, digest: str) -> None:
        super().__init__()
        self.config, self.digest = config, digest
        for name, value in (("mean", mean), ("std", std), ("points", points)):
            self.register_buffer(name, value.float().contiguous())

    @classmethod
    def of(cls, dataset: AtlasDataset, config: RepresentationConfig | None = None) -> Representation:
        """Make it of a dataset's published statistics.

        Those are of scales. Mean and deviation of their logarithms are those of up to 256 objects, spread evenly over
        what the dataset has selected, which are read.

        Raises:
            TrainingError: the dataset yields other channels than all sixteen, or standardises itself.
        """
        config = config or RepresentationConfig()
        _check_form(dataset)
        standard = dataset.standard()
        mean, std = standard.mean.double(), standard.std.double()
        if config.log_scale:
            mean[SCALE], std[SCALE] = _log_statistics(dataset)
        if config.per_pixel:
            std = torch.maximum(std, config.floor * std.mean((1, 2), keepdim=True)).clamp(min=_TINY)
        else:
            between = mean.var((1, 2), correction=0, keepdim=True)
            std = (std.square().mean((1, 2), keepdim=True) + between).sqrt().clamp(min=_TINY).expand_as(std)
            mean = mean.mean((1, 2), keepdim=True).expand_as(mean)
        return cls(config, mean, std, dataset.points(), statistics_digest(dataset))

    @property
    def size(self) -> int:
        """Side of the atlases, S."""
        return int(self.mean.shape[1])

    @property
    def channels_in(self) -> int:
        """Channels that the network reads; it predicts the first sixteen."""
        return CHANNELS + (3 if self.config.sphere_points else 0)

    def forward(self, atlas: Tensor) -> Tensor:
        """Atlases in their own units to what the network sees, [.., 16, S, S]."""
        if self.config.log_scale:
            scale = atlas[..., SCALE, :, :].clamp(MIN_SCALE, MAX_SCALE).log()
            atlas = torch.cat([atlas[..., : SCALE.start, :, :], scale, atlas[..., SCALE.stop :, :, :]], dim=-3)
        return (atlas - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Undo `forward`; with `log_scale` scales are above 0 and at most `MAX_SCALE`."""
        atlas = values * self.std + self.mean
        if self.config.log_scale:
            scale = atlas[..., SCALE, :, :].clamp(max=0).exp()
            atlas = torch.cat([atlas[..., : SCALE.start, :, :], scale, atlas[..., SCALE.stop :, :, :]], dim=-3)
        return atlas

    def inputs(self, noisy: Tensor) -> Tensor:
        """What the network reads: the noisy values, and the sphere points after them, [B, channels_in, S, S]."""
        if not self.config.sphere_points:
            return noisy
        points = self.points.permute(2, 0, 1).to(noisy).expand(len(noisy), -1, -1, -1)
        return torch.cat([noisy, points], dim=1)

    def check(self, dataset: AtlasDataset) -> None:
        """Raise TrainingError if this is not made of the dataset's statistics."""
        _check_form(dataset)
        if (found := statistics_digest(dataset)) != self.digest:
            raise TrainingError(
                f"{dataset.catalogue.url}: statistics {found[:12]}, the network is trained with {self.digest[:12]}: "
                "read the dataset (and its version) that it was trained on, or start a new training"
            )

    def save(self, folder: Path) -> None:
        """Write `folder/representation.safetensors`."""
        about = {"config": json.dumps(asdict(self.config)), "digest": self.digest}
        save_file({name: value.contiguous().cpu() for name, value in self.named_buffers()}, folder / _FILE, about)

    @classmethod
    def load(cls, folder: Path) -> Representation:
        """Read what `save` wrote.

        Raises:
            TrainingError: there is none.
        """
        if not (folder / _FILE).is_file():
            raise TrainingError(f"{folder}: no {_FILE}: pass a step-* folder that train_atlas wrote")
        with safe_open(folder / _FILE, "pt") as file:
            about = file.metadata()
            mean, std, points = (file.get_tensor(name) for name in ("mean", "std", "points"))
        return cls(RepresentationConfig(**json.loads(about["config"])), mean, std, points, about["digest"])


def statistics_digest(dataset: AtlasDataset) -> str:
    """Hex sha256 of a dataset's mean, deviation and sphere points, by their hashes in index.json."""
    entries = dataset.catalogue.index["statistics"]
    return hashlib.sha256("".join(entries[n]["sha256"] for n in (MEAN, STD, POINTS)).encode()).hexdigest()


def _log_statistics(dataset: AtlasDataset) -> tuple[Tensor, Tensor]:
    """Mean and deviation per pixel of the logarithms of scales, float64 [3, S, S] each."""
    places = dataset.samples.places
    chosen = places[np.linspace(0, len(places) - 1, min(_SAMPLED, len(places))).astype(int)]
    mean = squares = torch.zeros(())
    for count, uid in enumerate(dataset.catalogue.uids(chosen), 1):
        logs = dataset.get(uid)["atlas"][SCALE].double().clamp(MIN_SCALE, MAX_SCALE).log()
        change = logs - mean
        mean = mean + change / count
        squares = squares + change * (logs - mean)
    return mean, (squares / len(chosen)).sqrt()


def _check_form(dataset: AtlasDataset) -> None:
    form = dataset.form
    if form["standardise"] or list(form["channels"]) != list(range(CHANNELS)):
        raise TrainingError(
            f"{dataset.catalogue.url}: read it with standardise=False and all {CHANNELS} channels in their order; "
            "the trainer standardises"
        )
