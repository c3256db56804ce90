"""Loss of what the network predicts, weighted by group of channels."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.representation import GROUPS


@dataclass(frozen=True)
class GroupWeights:
    """Weight of each group's squared errors, in standardised units; only their ratios matter.

    Renders are far more sensitive to offsets than to the rest: noise of 5 % of their deviation costs more than 40 %
    in any other group. The three copies of the opacity weigh as much as one channel.
    """

    offset: float = 20.0
    opacity: float = 1.0
    color: float = 1.0
    scale: float = 1.0
    quaternion: float = 1.0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or not any(asdict(self).values()):
            raise TrainingError(f"weights {asdict(self)}: expected at least 0, and one above 0")

    def per_channel(self) -> Tensor:
        """Weights of the channels, mean 1, [16, 1, 1]."""
        weights = torch.zeros(CHANNELS)
        for group, weight in asdict(self).items():
            weights[list(GROUPS[group])] = weight / (3 if group == "opacity" else 1)
        return (weights / weights.mean()).view(CHANNELS, 1, 1)


def weighted_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean of the squared errors of [B, 16, S, S], weighted by channel [16, 1, 1]."""
    return ((output - target).square() * weights).mean()
