"""Atlases as tensors [.., 16, size, size]: standardisation, its inverse, and unpacking with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ALBEDO, CHANNELS, OFFSET, OPACITY_COPIES, QUATERNION, SCALE
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.plane import points_of


class Standard(nn.Module):
    """Standardise atlases to mean 0 and standard deviation 1 per pixel and channel (paper section 5).

    It is a module, so that `.to(device)` moves its buffers and checkpoints contain them.

    Args:
        mean: [size, size, 16], as in atlas_mean.npy.
        std: [size, size, 16], above 0, as in atlas_std.npy.

    Raises:
        AtlasError: a wrong shape, or a standard deviation that is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: npt.ArrayLike, std: npt.ArrayLike) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            array = np.asarray(values, np.float32)
            if array.ndim != 3 or array.shape[0] != array.shape[1] or array.shape[2] != CHANNELS:
                raise AtlasError(f"{name} has shape {array.shape}, expected [size, size, {CHANNELS}]")
            self.register_buffer(name, torch.from_numpy(array.copy()).permute(2, 0, 1))
        if self.mean.shape != self.std.shape or not bool((self.std > 0).all()):
            raise AtlasError("std must be above 0 everywhere and have the shape of mean")

    def select(self, channels: Sequence[int]) -> Standard:
        """The same for atlases of these channels only, in this order."""
        chosen, numbers = deepcopy(self), list(channels)
        chosen.mean, chosen.std = self.mean[numbers], self.std[numbers]
        return chosen

    def forward(self, atlas: Tensor) -> Tensor:
        """Standardise, [.., 16, size, size]."""
        return (atlas - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Undo `forward`."""
        return values * self.std + self.mean


@dataclass(frozen=True)
class SplatTensors:
    """Gaussians of one atlas as tensors, one per cell, row by row, with gradients to the atlas.

    Attributes:
        means: [M, 3].
        scales: [M, 3].
        quats: unit, wxyz, [M, 4].
        opacities: mean of the three copies, [M].
        colors: RGB, [M, 3].
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    colors: Tensor


def unpack_tensor(atlas: Tensor, *, points: Tensor | None = None, clamp: bool = False) -> SplatTensors:
    """Unpack an atlas to tensors, differentiably.

    Unlike `unpack` it returns a Gaussian for every cell, also for padding, which is invisible with opacity 0: the
    opacities of a generated atlas are rarely exactly 0, and the shapes stay the same.

    Args:
        atlas: not standardised, [16, size, size].
        points: sphere point of each cell, [size, size, 3], from `AtlasDataset.points()`. None means the paper's
            layout with the shipped plane indices.
        clamp: whether to clamp generated values to the ranges that rendering needs (opacity and colour [0, 1],
            scale at least 1e-6).

    Returns:
        `SplatTensors` of size^2 Gaussians, on the atlas's device and in its dtype.

    Raises:
        AtlasError: a wrong shape.
        ConfigError: no points are given, and no atlas has this size.
    """
    if atlas.ndim != 3 or atlas.shape[0] != CHANNELS or atlas.shape[1] != atlas.shape[2]:
        raise AtlasError(f"an atlas is [{CHANNELS}, size, size], got {tuple(atlas.shape)}")
    cells = atlas.permute(1, 2, 0).reshape(-1, CHANNELS)
    if points is None:
        points = torch.from_numpy(points_of(AtlasConfig(size=int(atlas.shape[1]))))
    if points.numel() != 3 * len(cells):
        raise AtlasError(f"points have shape {tuple(points.shape)}, expected {(*atlas.shape[1:], 3)}")
    opacities = cells[:, OPACITY_COPIES].mean(dim=1)
    scales, colors = cells[:, SCALE], cells[:, ALBEDO]
    if clamp:
        opacities, colors, scales = opacities.clamp(0, 1), colors.clamp(0, 1), scales.clamp(min=1e-6)
    return SplatTensors(
        means=cells[:, OFFSET] + points.reshape(-1, 3).to(cells),
        scales=scales,
        quats=nn.functional.normalize(cells[:, QUATERNION], dim=1),
        opacities=opacities,
        colors=colors,
    )
