"""Plain Gaussians, into which anchors are baked; also the ablation `model = "plain"`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gaussianverse.fitter.anchors import Decoded
from gaussianverse.fitter.rasterize.reference import rotation_matrices

OPACITY_RANGE = (1e-4, 1 - 1e-4)
"""Opacities that logits are trained for; others are moved into it."""


@dataclass
class Plain:
    """G Gaussians without anchors; every tensor is trained.

    Attributes:
        means: [G, 3].
        log_scales: [G, 3].
        quats: [G, 4], wxyz, of any norm.
        logits: opacity before the sigmoid, [G].
        colors: [G, 3]; drawn clamped to [0, 1].
    """

    means: Tensor
    log_scales: Tensor
    quats: Tensor
    logits: Tensor
    colors: Tensor

    NAMES = ("means", "log_scales", "quats", "logits", "colors")

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self) -> dict[str, Tensor]:
        """Trained tensors by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def decode(self) -> Decoded:
        """Decode all Gaussians, differentiably in every parameter."""
        return Decoded(
            self.means,
            self.quats,
            torch.exp(self.log_scales),
            torch.sigmoid(self.logits),
            self.colors.clamp(0, 1),
            torch.arange(len(self), device=self.means.device),
        )


class Mean:
    """Mean of plain Gaussians over steps that leave their number and order as they are."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, plain: Plain) -> None:
        """Add the Gaussians of one step."""
        rows = {name: tensor.detach().double() for name, tensor in plain.parameters().items()}
        self._sums = {name: tensor + self._sums[name] for name, tensor in rows.items()} if self._count else rows
        self._count += 1

    def plain(self) -> Plain:
        """The mean of what was added, of which there must be some."""
        return Plain(**{name: (total / self._count).float() for name, total in self._sums.items()})


def bake(decoded: Decoded) -> Plain:
    """Bake decoded Gaussians into plain ones that render equally, up to opacities outside [1e-4, 1 - 1e-4]."""
    return Plain(
        decoded.means.detach().clone(),
        torch.log(decoded.scales.detach()),
        F.normalize(decoded.quats.detach(), dim=-1),
        torch.logit(decoded.opacities.detach().clamp(*OPACITY_RANGE)),
        decoded.colors.detach().clone(),
    )


def plain_at(positions: Tensor, spacing: Tensor) -> Plain:
    """Grey, half-opaque balls of 0.6 times the spacing.

    Args:
        positions: [G, 3].
        spacing: distance of each to its neighbours, [G].
    """
    quats = torch.zeros((len(positions), 4), device=positions.device)
    quats[:, 0] = 1
    return Plain(
        positions,
        torch.log(0.6 * spacing)[:, None].repeat(1, 3),
        quats,
        torch.zeros(len(positions), device=positions.device),
        torch.full_like(positions, 0.5),
    )


def split_parents(dead: Tensor, gradient: Tensor, tau: int, share: float) -> Tensor:
    """Find the Gaussians to split in two: the living ones with the largest mean screen gradient.

    As many are split as are dead, plus up to `share` of all within the bound.

    Args:
        dead: mask [G] of those that make room.
        gradient: mean screen gradient of each, [G].
        tau: the bound.
        share: growth per call, as a fraction of G.

    Returns:
        Their indices.
    """
    wanted = int(dead.sum()) + min(max(0, tau - len(dead)), int(share * len(dead)))
    living = (~dead).nonzero()[:, 0]
    order = torch.argsort(gradient[living], descending=True, stable=True)
    return living[order[: min(wanted, len(living))]]


def halves(plain: Plain, parents: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split each parent into two Gaussians, moved by half a standard deviation along its longest axis.

    Both are 0.6 as long on that axis; the other axes keep their length. The first replaces the parent.
    """
    with torch.no_grad():
        rows = {name: tensor.detach()[parents].clone() for name, tensor in plain.parameters().items()}
        length, axis = rows["log_scales"].max(1)
        each = torch.arange(len(parents), device=axis.device)
        direction = rotation_matrices(rows["quats"])[each, :, axis]
        shift = 0.5 * torch.exp(length)[:, None] * direction
        rows["log_scales"][each, axis] += math.log(0.6)
        first, second = dict(rows), dict(rows)
        first["means"], second["means"] = rows["means"] - shift, rows["means"] + shift
    return first, second
