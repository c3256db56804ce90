"""Plain Gaussians: what anchors are baked into, and the ablation `model = "plain"`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gaussianverse.fitter.anchors import Decoded

_OPACITY_RANGE = (1e-4, 1 - 1e-4)


@dataclass
class Plain:
    """G free Gaussians; every tensor has G rows and is trained.

    Attributes:
        means: [G, 3].
        log_scales: [G, 3].
        quats: [G, 4], wxyz, of any length.
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
        """What Adam trains, by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def decode(self) -> Decoded:
        """All Gaussians, differentiable in every parameter."""
        return Decoded(
            self.means,
            self.quats,
            torch.exp(self.log_scales),
            torch.sigmoid(self.logits),
            self.colors.clamp(0, 1),
            torch.arange(len(self), device=self.means.device),
        )


def bake(decoded: Decoded) -> Plain:
    """Plain Gaussians that draw the same picture, up to opacities outside of [1e-4, 1 - 1e-4]."""
    return Plain(
        decoded.means.detach().clone(),
        torch.log(decoded.scales.detach()),
        F.normalize(decoded.quats.detach(), dim=-1),
        torch.logit(decoded.opacities.detach().clamp(*_OPACITY_RANGE)),
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


def split_parents(
    opacities: Tensor, gradient: Tensor, min_opacity: float, tau: int, share: float
) -> tuple[Tensor, Tensor]:
    """Which Gaussians are dead, and which are to be split in two.

    As many are split as are dead, and beyond that up to `share` of all while the bound leaves room: the ones
    with the largest mean screen gradient.

    Args:
        opacities: [G].
        gradient: mean screen gradient of each, [G].
        min_opacity: under it a Gaussian is dead.
        tau: the bound.
        share: growth per call, as a fraction of G.

    Returns:
        Indices of the dead, and of the parents (never dead ones).
    """
    dead = (opacities < min_opacity).nonzero()[:, 0]
    room = max(0, tau - len(opacities))
    wanted = len(dead) + min(room, int(share * len(opacities)))
    living = (opacities >= min_opacity).nonzero()[:, 0]
    order = torch.argsort(gradient[living], descending=True, stable=True)
    return dead, living[order[: min(wanted, len(living))]]


def halves(plain: Plain, parents: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two Gaussians that each parent becomes: moved half a deviation apart along its longest axis.

    Each is 0.6 as long on that axis; the others stay. The first half replaces the parent.
    """
    with torch.no_grad():
        rows = {name: tensor.detach()[parents].clone() for name, tensor in plain.parameters().items()}
        length, axis = rows["log_scales"].max(1)
        w, x, y, z = F.normalize(rows["quats"], dim=-1).unbind(-1)
        columns = torch.stack(
            [
                torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], -1),
                torch.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], -1),
                torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1),
            ],
            1,
        )
        direction = columns[torch.arange(len(parents)), axis]
        shift = 0.5 * torch.exp(length)[:, None] * direction
        rows["log_scales"][torch.arange(len(parents)), axis] += math.log(0.6)
        first, second = dict(rows), dict(rows)
        first["means"], second["means"] = rows["means"] - shift, rows["means"] + shift
    return first, second
