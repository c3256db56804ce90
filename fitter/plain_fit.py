"""Fit of plain Gaussians: steps, and the rules by which their number follows the object."""

from __future__ import annotations

import torch
from torch import Tensor

from gaussianverse.fitter.anchors import Decoded
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.plain import Mean, Plain, halves, split_parents
from gaussianverse.fitter.plain_training import PlainTraining, plain_training
from gaussianverse.fitter.training import Training

_RELOCATE_UNTIL = 0.8  # fraction of the steps
_RECYCLED_BELOW = 0.5  # of the median blending weight
_REFERENCE = 10 ** (-34 / 10)
"""Mean squared error at 34 dB, a middling fit: see `worthless`."""
_OWN = 0.3
"""Weight of the fit's own error in the limit."""


def fit_plain(training: Training, plain: Plain, extent: float, first: int) -> Decoded:
    """Train plain Gaussians from step `first` to the last, with growth, recycling and pruning.

    Returned is their mean over the last steps (`FitConfig.average`), but only those since their number last changed.

    Args:
        training: the fit.
        plain: the Gaussians to begin with.
        extent: by which the rates of positions are multiplied.
        first: the first step.
    """
    config, rates, last = training.config, training.config.rates, training.config.steps
    scaled = {name: getattr(rates, name) for name in Plain.NAMES}
    scaled["means"] = (rates.means[0] * extent, rates.means[1] * extent)
    trained = plain_training(training, plain, scaled)
    counts = config.counts
    prunings = {round(share * last) for share in counts.prune_at} if counts.epsilon > 0 else set()
    relocate_until = first + int(_RELOCATE_UNTIL * (last - first))
    averaged_from, mean = last - round(config.average * last), Mean()
    for step, view in training.steps(first, last):
        if step in prunings and step > first:
            _prune(trained, training, step)
            mean = Mean()
        trained.step(step, view)
        due = config.relocate_every and (step - first + 1) % config.relocate_every == 0
        if due and step < relocate_until:
            _relocate(trained, config, growing=step < first + counts.grow_until * (last - first))
            mean = Mean()
        elif step >= averaged_from:
            mean.add(trained.plain())
    with torch.no_grad():
        return (mean.plain() if len(mean) else trained.plain()).decode()


def worthless(costs: Tensor, error: float, pixels: int, epsilon: float) -> Tensor:
    """Mask [G] of the Gaussians whose removal would change the training renders by too little.

    The limit is epsilon times the squared error that the fit has now to the power of 0.3, times the one that it would
    have at 34 dB to the power of 0.7. Relative to its own error alone, a simple object, whose error is small, would
    keep as many Gaussians as a complex one; relative to a fixed error it would lose quality that others keep.

    Args:
        costs: squared change of the renders without each Gaussian, [G], see `PlainTraining.removal_costs`.
        error: squared error of the renders.
        pixels: number of values (views x height x width x channels) that both are summed over.
        epsilon: `CountConfig.epsilon`.
    """
    return costs.lt(epsilon * error**_OWN * (_REFERENCE * pixels) ** (1 - _OWN))


def _prune(trained: PlainTraining, training: Training, step: int) -> None:
    """Drop the worthless Gaussians, but for `min_gaussians` of the best."""
    config, scene = training.config, training.scene(step)
    costs, error = trained.removal_costs(step)
    drop = worthless(costs, error, len(scene) * scene.height * scene.width * 3, config.counts.epsilon)
    drop[torch.argsort(costs, descending=True, stable=True)[: config.min_gaussians]] = False
    training.pruned += int(drop.sum())
    nobody = torch.zeros(0, dtype=torch.long, device=drop.device)
    none = {name: t[:0] for name, t in trained.plain().parameters().items()}
    trained.replace(~drop, none, nobody, none)


def _relocate(trained: PlainTraining, config: FitConfig, growing: bool = True) -> None:
    """Split Gaussians, those with the largest screen gradients, in place of dead and recycled ones; at most tau."""
    plain = trained.plain()
    dead = torch.sigmoid(plain.logits.detach()) < config.growth.min_opacity
    if config.counts.recycle > 0 and (len(plain) >= config.tau or config.counts.epsilon > 0):
        weights = trained.blending_weights()
        limit = torch.quantile(weights, config.counts.recycle)
        dead |= weights <= torch.minimum(limit, _RECYCLED_BELOW * weights.median())
    share = config.counts.grow_share if growing else 0.0
    parents = split_parents(dead, trained.mean_gradient(), config.tau, share)
    first, second = halves(plain, parents)
    keep = ~dead
    trained.replace(keep, second, (torch.cumsum(keep, 0) - 1)[parents], first)
