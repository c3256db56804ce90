"""Baking of view-dependent colour: the one colour per Gaussian that looks most like it from all directions.

A render is linear in the colours, so to find those whose renders have the least squared error is a linear problem. It
starts at the mean over directions around the object, weighted by what a Gaussian contributes to the renders, and
takes a few preconditioned conjugate-gradient steps; more would fit the cameras and not the object (`make bench-sh`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.harmonics import ViewDependent
from gaussianverse.fitter.around import FOV, ball_of, directions_around, render, viewmats_around
from gaussianverse.fitter.metrics import psnr

BAKE_VIEWS, BAKE_SIZE = 64, 160
"""Cameras that colours are baked from, and the side of their images in pixels."""
STEPS = 2
"""Conjugate-gradient steps from the weighted mean."""
MEASURE_VIEWS, MEASURE_SIZE = 24, 256
"""Cameras behind `sh_psnr`, which differ from those of the baking, and the side of their images in pixels."""

# a Gaussian that contributes less than this, in pixels over all renders, tends to the mean over all directions
_UNSEEN = 1e-3

Floats = NDArray[np.float64]


def bake(seen: ViewDependent, views: int = BAKE_VIEWS, size: int = BAKE_SIZE, steps: int = STEPS) -> Gaussians:
    """Replace view-dependent colours by one colour per Gaussian; on one CPU a function of `seen` alone.

    Args:
        seen: at least one Gaussian; returned with the colours it has if they depend on no direction.
        views: cameras, evenly around the object.
        size: side of their images in pixels.
        steps: conjugate-gradient steps.
    """
    if seen.plain:
        return seen.gaussians
    framed, cameras = _framed(seen), _cameras(views)
    count = len(seen)
    weights, weighted, mean = np.zeros((count, 1)), np.zeros((count, 3)), np.zeros((count, 3))
    targets = []
    for viewmat, eye in cameras:
        colors = framed.colors_from(eye)
        image, contribution = _pass(framed.gaussians, viewmat, size, colors, torch.ones(1))
        weights += contribution[:, :1]
        weighted += contribution[:, :1] * colors
        mean += colors / views
        targets.append(image)
    scale = 1 / (weights + _UNSEEN)
    found = (weighted + _UNSEEN * mean) * scale

    # conjugate gradients on the normal equations, each colour channel by itself
    gradient = np.zeros((count, 3))
    for (viewmat, _), target in zip(cameras, targets, strict=True):
        gradient += _pass(framed.gaussians, viewmat, size, found, target, residual=True)[1]
    direction, power = scale * gradient, (gradient * scale * gradient).sum(0)
    for _ in range(steps):
        curved, energy = np.zeros((count, 3)), np.zeros(3)
        for viewmat, _eye in cameras:
            image, slope = _pass(framed.gaussians, viewmat, size, direction)
            curved += slope
            energy += image.double().square().sum((0, 1, 2)).numpy()
        length = power / np.maximum(energy, 1e-300)
        found += length * direction
        gradient -= length * curved
        before, power = power, (gradient * scale * gradient).sum(0)
        direction = scale * gradient + power / np.maximum(before, 1e-300) * direction
    return replace(seen.gaussians, colors=np.clip(found, 0, 1).astype(np.float32))


def sh_psnr(seen: ViewDependent, baked: Gaussians) -> float:
    """PSNR in dB of renders of `baked` against those with view-dependent colour, on white; 100 if they are equal.

    The mean squared error is taken over `MEASURE_VIEWS` cameras around the object.
    """
    if seen.plain and np.array_equal(seen.gaussians.colors, baked.colors):
        return 100.0
    framed, colors = _framed(seen), torch.from_numpy(baked.colors)
    shown, expected = [], []
    with torch.no_grad():
        for viewmat, eye in _cameras(MEASURE_VIEWS, turn=1.0):
            own = torch.from_numpy(framed.colors_from(eye).astype(np.float32))
            expected.append(render(framed.gaussians, viewmat, MEASURE_SIZE, colors=own))
            shown.append(render(framed.gaussians, viewmat, MEASURE_SIZE, colors=colors))
    return psnr(torch.cat(shown).clamp(0, 1), torch.cat(expected).clamp(0, 1))


def _pass(
    gaussians: Gaussians,
    viewmat: Tensor,
    size: int,
    colors: Floats,
    target: Tensor | None = None,
    *,
    residual: bool = False,
) -> tuple[Tensor, Floats]:
    """The render A c of one camera on black, and A^T applied to `target`, to `target` - A c, or to A c itself."""
    leaf = torch.from_numpy(colors.astype(np.float32)).requires_grad_()
    image = render(gaussians, viewmat, size, colors=leaf, background=0.0)
    shown = image.detach()
    onto = shown if target is None else target - shown if residual else target.expand_as(shown)
    image.backward(onto)  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return shown, leaf.grad.double().numpy()


def _framed(seen: ViewDependent) -> ViewDependent:
    """The same object, centred, in a ball of radius 1."""
    return ViewDependent(ball_of(seen.gaussians).local(seen.gaussians), seen.harmonics)


def _cameras(count: int, turn: float = 0.0) -> list[tuple[Tensor, Floats]]:
    """World-to-camera matrices [1, 4, 4] and positions of cameras around the unit ball, evenly on a sphere."""
    directions = directions_around(count, turn)
    viewmats = torch.from_numpy(viewmats_around(directions, np.zeros(3), 1.0))
    return list(zip(viewmats[:, None], directions / np.sin(FOV / 2), strict=True))
