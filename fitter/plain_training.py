"""Training of plain Gaussians: by native kernels, a call a step, or by autograd on any backend and with LPIPS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gaussianverse.fitter.anchors import Decoded
from gaussianverse.fitter.growth import screen_gradient
from gaussianverse.fitter.native.step import COLUMNS, SIDE_MIN, PlainStep
from gaussianverse.fitter.optimizer import RowAdam, decayed
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.training import Training

Rates = Mapping[str, tuple[float, float]]
Rows = Mapping[str, Tensor]


class PlainTraining(Protocol):
    """Plain Gaussians, their optimiser, and what growth wants to know of them since the last `replace`."""

    def plain(self) -> Plain:
        """The Gaussians as they are; not to be changed."""

    def step(self, step: int, view: int) -> None:
        """Take one step of the fit."""

    def mean_gradient(self) -> Tensor:
        """Mean norm of the screen gradient [G] over the views that drew a Gaussian; 0 if none did."""

    def blending_weights(self) -> Tensor:
        """Sum of T alpha of each Gaussian over pixels, [G], of the views since the last `replace` or of all views."""

    def removal_costs(self, step: int) -> tuple[Tensor, float]:
        """Squared change that the removal of each Gaussian makes to the renders, [G], and their squared error now.

        Both are sums over all training views at the resolution of `step`, their pixels and channels, on the fit's
        backgrounds.
        """

    def replace(self, keep: Tensor, added: Rows, changed: Tensor, values: Rows) -> None:
        """Keep the Gaussians of a mask [G], append others, and change some of the kept ones; these have no history.

        Args:
            keep: mask [G].
            added: rows by name.
            changed: rows that are changed, counted after the mask.
            values: their new values by name.
        """


class ByAutograd:
    """Training by `rasterization`, torch's autograd and torch's Adam."""

    def __init__(self, training: Training, plain: Plain, rates: Rates) -> None:
        self._training, self._adam = training, RowAdam(plain.parameters(), rates)
        self._clear()

    def _clear(self) -> None:
        self._plain = Plain(**self._adam.tensors)
        self._gradient, self._drawn = (torch.zeros(len(self._plain), device=self._training.device) for _ in range(2))

    def plain(self) -> Plain:
        """The Gaussians as they are; not to be changed."""
        return self._plain

    def step(self, step: int, view: int) -> None:
        """Take one step of the fit."""
        meta = self._training.backward(step, view, self._plain.decode())
        scene, visible = self._training.scene(step), (meta["radii"] > 0).all(-1)
        norms = screen_gradient(meta["means2d"], scene.width, scene.height)
        self._gradient += torch.where(visible, norms, 0.0).sum(0)
        self._drawn += visible.sum(0)
        del meta
        self._adam.step(step / self._training.config.steps)

    def mean_gradient(self) -> Tensor:
        """See `PlainTraining`."""
        return self._gradient / self._drawn.clamp(min=1)

    def blending_weights(self) -> Tensor:
        """See `PlainTraining`: of all views at full resolution, the gradient of the renders' sum in each colour."""
        last = self._training.config.steps
        total = torch.zeros(len(self._plain), device=self._training.device)
        for index in range(len(self._training.full)):
            decoded = self._detached()
            colors = decoded.colors.requires_grad_()
            image = self._training.render(last, index, decoded, torch.zeros(3, device=self._training.device))
            total += torch.autograd.grad(image[..., 0].sum(), colors)[0][:, 0]
        return total

    def removal_costs(self, step: int) -> tuple[Tensor, float]:
        """See `PlainTraining`: an estimate by one backward pass a view.

        A pixel is affine in each opacity, so its derivative times the opacity is what removal takes away. The square
        of the sum of these over pixels, each with a random sign, has the sum of their squares as its expected value.
        """
        training = self._training
        scene, costs, error = training.scene(step), torch.zeros(len(self._plain), device=training.device), 0.0
        for index in range(len(scene)):
            decoded, background = self._detached(), training.background()
            opacities = decoded.opacities.requires_grad_()
            image = training.render(step, index, decoded, background)
            reference = scene.composited(torch.tensor([index]), background)
            error += float((image.detach() - reference).double().square().sum())
            signs = 2.0 * torch.randint(0, 2, image.shape, generator=training.generator).to(image) - 1
            (slope,) = torch.autograd.grad((image * signs).sum(), opacities)
            costs += (slope * opacities.detach()).square()
        return costs, error

    def _detached(self) -> Decoded:
        with torch.no_grad():
            return self._plain.decode()

    def replace(self, keep: Tensor, added: Rows, changed: Tensor, values: Rows) -> None:
        """See `PlainTraining`."""
        for name in Plain.NAMES:
            self._adam.rows(name, keep, added[name])
            with torch.no_grad():
                self._adam.tensors[name][changed] = values[name]
            self._adam.forget(name, changed)
        self._clear()


class ByKernels:
    """Training by `PlainStep`: the loss without LPIPS, on the CPU."""

    def __init__(self, training: Training, plain: Plain, rates: Rates) -> None:
        self._training, self._rates = training, rates
        self._state = PlainStep({name: tensor.detach().numpy() for name, tensor in plain.parameters().items()})

    def plain(self) -> Plain:
        """A copy of the Gaussians."""
        return Plain(**{name: torch.from_numpy(rows) for name, rows in self._state.values.items()})

    def step(self, step: int, view: int) -> None:
        """Take one step of the fit."""
        training = self._training
        rates = {name: decayed(self._rates[name], step / training.config.steps) for name in COLUMNS}
        loss = self._state.step(
            training.pictures(step), [view], training.background().tolist(), rates, training.weights(step),
            training.config.max_alpha,
        )  # fmt: skip
        training.report(step, view, loss, len(self._state))

    def mean_gradient(self) -> Tensor:
        """See `PlainTraining`."""
        return torch.from_numpy(self._state.screen / np.maximum(self._state.views, 1))

    def blending_weights(self) -> Tensor:
        """See `PlainTraining`: of the views since the last `replace`."""
        return torch.from_numpy(self._state.weights.copy())

    def removal_costs(self, step: int) -> tuple[Tensor, float]:
        """See `PlainTraining`: exact."""
        training = self._training
        backgrounds = torch.stack([training.background() for _ in range(len(training.full))]).numpy()
        costs, error = self._state.removal_costs(training.pictures(step), backgrounds, training.config.max_alpha)
        return torch.from_numpy(costs).float(), error

    def replace(self, keep: Tensor, added: Rows, changed: Tensor, values: Rows) -> None:
        """See `PlainTraining`."""
        self._state.replace(keep.numpy(), {name: rows.numpy() for name, rows in added.items()})
        self._state.set_rows(changed.numpy(), {name: rows.numpy() for name, rows in values.items()})


def plain_training(training: Training, plain: Plain, rates: Rates) -> PlainTraining:
    """Train by kernels where the backend is `cpu`, LPIPS has no weight and SSIM's window fits, else by autograd."""
    side = min(training.small.height, training.small.width)
    if training.backend == "cpu" and not training.has_lpips and side >= SIDE_MIN:
        return ByKernels(training, plain, rates)
    return ByAutograd(training, plain, rates)
