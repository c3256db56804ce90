"""Anchors without view input, the model that is fitted (Scaffold-GS, CVPR 2024; paper section 3).

An anchor is a fixed point with a feature, six log-scalings and K offsets; three small heads map features to the
opacities, covariances and colours of K Gaussians. Nothing depends on the view, so one decode serves any number of
cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

HEADS = ("opacity", "covariance", "color")


@dataclass
class Decoded:
    """G Gaussians with positive opacity as float32 tensors, and the source of each.

    `quats` have any norm: the rasteriser and `bake` normalise them.
    """

    means: Tensor  # [G, 3]
    quats: Tensor  # [G, 4]
    scales: Tensor  # [G, 3]
    opacities: Tensor  # [G]
    colors: Tensor  # [G, 3]
    source: Tensor  # [G] int64: anchor * K + offset


@dataclass
class Anchors:
    """A anchors with K offsets each, and their shared heads.

    Attributes:
        positions: [A, 3], not trained.
        offsets: [A, K, 3], in units of exp(scalings[:, :3]).
        features: [A, F].
        scalings: [A, 6], log; the first three scale the offsets, the last three the Gaussians.
        alive: bool [A, K]; False for offsets that the visibility ranking dropped.
        heads: two weight matrices and two biases for each of `HEADS`.
    """

    positions: Tensor
    offsets: Tensor
    features: Tensor
    scalings: Tensor
    alive: Tensor
    heads: dict[str, Tensor]

    PER_ANCHOR = ("offsets", "features", "scalings")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def k(self) -> int:
        """Number of offsets per anchor."""
        return int(self.alive.shape[1])

    def parameters(self) -> dict[str, Tensor]:
        """Trained tensors by name."""
        return {name: getattr(self, name) for name in self.PER_ANCHOR} | self.heads

    def opacities(self) -> Tensor:
        """Raw opacities tanh(..) of every offset, [A, K] in (-1, 1); -1 for dead offsets."""
        raw = torch.tanh(_head(self.heads, "opacity", self.features))
        return torch.where(self.alive, raw, -1.0)

    def decode(self) -> Decoded:
        """Decode the Gaussians with positive opacity, differentiably in every parameter."""
        opacities = self.opacities().reshape(-1)
        source = (opacities.detach() > 0).nonzero()[:, 0]
        count = len(self) * self.k
        covariance = _head(self.heads, "covariance", self.features).reshape(count, 7)[source]
        colors = torch.sigmoid(_head(self.heads, "color", self.features)).reshape(count, 3)[source]
        anchor = source // self.k
        scaling = torch.exp(self.scalings[anchor])
        means = self.positions[anchor] + self.offsets.reshape(count, 3)[source] * scaling[:, :3]
        scales = scaling[:, 3:] * torch.sigmoid(covariance[:, :3])
        return Decoded(means, covariance[:, 3:], scales, opacities[source], colors, source)


def _head(heads: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    hidden = F.relu(F.linear(features, heads[f"{name}_w0"], heads[f"{name}_b0"]))
    return F.linear(hidden, heads[f"{name}_w1"], heads[f"{name}_b1"])


def make_heads(k: int, feature_dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Initialise heads Linear(F, F) - ReLU - Linear(F, out) with out = K, 7K, 3K; uniform in +- 1/sqrt(F).

    The biases of quaternions start at the identity, so that no Gaussian starts with a quaternion near zero.
    """
    heads: dict[str, Tensor] = {}
    bound = feature_dim**-0.5
    for name, out in zip(HEADS, (k, 7 * k, 3 * k), strict=True):
        for layer, rows in (("0", feature_dim), ("1", out)):
            weight = torch.rand((rows, feature_dim), generator=generator)
            bias = torch.rand(rows, generator=generator)
            heads[f"{name}_w{layer}"] = bound * (2 * weight - 1)
            heads[f"{name}_b{layer}"] = bound * (2 * bias - 1)
    heads["covariance_b1"].view(k, 7)[:, 3] += 1.0
    return heads


def new_anchors(
    positions: Tensor, spacing: Tensor, k: int, feature_dim: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Initialise the per-anchor tensors of anchors at `positions` [A, 3] whose neighbours are `spacing` [A] away.

    Features are random with standard deviation 1. Scaffold-GS starts them at zero, which without view input
    gives every anchor the same K opacities: at K = 4, about 6 % of all seeds would never draw anything. Offsets
    are random too; otherwise the K Gaussians of an anchor would coincide.
    """
    count, device = len(positions), positions.device
    return {
        "positions": positions,
        "offsets": 0.5 * torch.randn((count, k, 3), generator=generator).to(device),
        "features": torch.randn((count, feature_dim), generator=generator).to(device),
        "scalings": torch.log(spacing)[:, None].repeat(1, 6),
        "alive": torch.ones((count, k), dtype=torch.bool, device=device),
    }


def make_anchors(positions: Tensor, spacing: Tensor, k: int, feature_dim: int, generator: torch.Generator) -> Anchors:
    """Initialise anchors at `positions` [A, 3] and heads, on their device; `generator` is on the CPU."""
    heads = {name: t.to(positions.device) for name, t in make_heads(k, feature_dim, generator).items()}
    return Anchors(**new_anchors(positions, spacing, k, feature_dim, generator), heads=heads)
