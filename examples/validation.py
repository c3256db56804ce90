"""Where a model fails: errors of x0 by noise level and group of channels, of offsets in world units, and PSNR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gaussianverse.examples.process import Process
from gaussianverse.examples.representation import GROUPS, Representation
from gaussianverse.examples.sampling import Predict
from gaussianverse.examples.views import Cameras, psnr, render_atlas

TIMES = (20, 100, 250, 500, 750, 900, 999)
"""Noise levels of 1000, from little to none of the signal left."""
_SEED = 7


@torch.no_grad()
def reconstruction(
    predict: Predict, process: Process, representation: Representation, atlases: Tensor, embedded: Tensor, *,
    times: Sequence[int] = TIMES, cameras: Cameras | None = None,
) -> dict[int, dict[str, float]]:  # fmt: skip
    """Predict x0 in one step from true atlases with noise, and compare; the noise is the same in each call.

    A dip of `psnr` at middle times says that the network does not carry the noisy input through.

    Args:
        predict: see `sampling.Predict`.
        process: what the network predicts.
        representation: what the network sees.
        atlases: B true atlases in their own units, [B, 16, S, S].
        embedded: their captions, [B, T, D].
        times: noise levels.
        cameras: of the renders; None = no renders, which take most of the time.

    Returns:
        For each time: rms error of each group of channels in standardised units, `offset_world` in the units of the
        object's world, and with cameras `psnr` of renders against the true atlases'.
    """
    clean = representation(atlases)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(_SEED)).to(clean)
    truth = [] if cameras is None else [render_atlas(a, representation.points, cameras) for a in atlases]
    found = {}
    for time in times:
        at = torch.full((len(atlases),), time, device=clean.device)
        noisy = process.noisy(clean, noise, at)
        estimate = process.clean(predict(noisy, at, embedded), noisy, at)
        made = representation.inverse(estimate)
        row = group_errors(estimate - clean)
        row["offset_world"] = float((made - atlases)[:, list(GROUPS["offset"])].square().mean().sqrt())
        if cameras is not None:
            scores = [
                psnr(render_atlas(a, representation.points, cameras), t) for a, t in zip(made, truth, strict=True)
            ]
            row["psnr"] = sum(scores) / len(scores)
        found[time] = row
    return found


def group_errors(differences: Tensor) -> dict[str, float]:
    """Root mean square of differences [B, 16, S, S], by group of channels."""
    return {group: float(differences[:, list(channels)].square().mean().sqrt()) for group, channels in GROUPS.items()}
