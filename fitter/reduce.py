"""Reduction of Gaussians to the number that an atlas has cells, so that renders change as little as possible.

Nothing but the Gaussians is needed: the references are renders of all of them, from cameras around the object.
The native kernels render and train, which give the same bits on every processor.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gaussianverse.atlas import gates
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.atlas.padding import prune
from gaussianverse.fitter.around import ball_of, directions_around, intrinsics, render_with_alpha, viewmats_around
from gaussianverse.fitter.native.step import COLUMNS, Pictures, PlainStep, Weights
from gaussianverse.fitter.optimizer import decayed
from gaussianverse.fitter.plain import OPACITY_RANGE
from gaussianverse.fitter.rasterize import MAX_ALPHA

CAMERAS, SIZE = 32, 512
"""Cameras of the references, and the side of their images in pixels."""
STEPS = 300
"""Training steps of the refinement."""
ROUNDS = 4
"""Times that Gaussians are pruned, the first time before the first step."""
_LAST_ROUND = 150
"""Step before which they are pruned for the last time."""
_STRIDE = 13
"""Step k trains on camera k * _STRIDE, so that successive cameras are on different sides."""
_RATES = {
    "means": (2e-4, 1e-5),  # the object has radius 1
    "log_scales": (0.01, 0.002),
    "quats": (0.004, 0.001),
    "logits": (0.03, 0.005),
    "colors": (0.003, 0.0005),
}
_LOSS = Weights(l1=0.8, ssim=0.2, volume=0.0)

Floats = NDArray[np.float64]


def reduce(gaussians: Gaussians, count: int, rule: str) -> Gaussians:
    """Reduce Gaussians to at most `count`; returned as they are where they are no more.

    Args:
        gaussians: M Gaussians with values that an atlas can hold.
        count: the bound, at least 1.
        rule: "scale" keeps those with the largest mean scale, "contribution" those with the largest sum of blending
            weights T alpha over all references. "refine" prunes, in rounds, those whose removal changes the renders
            the least, and trains the others on the references; where the result is no closer to them than that of
            "contribution", it is the latter.

    Raises:
        AtlasError: a value is out of its range; the message names the row.
        MemoryError: the kernels found no memory.
    """
    if len(gaussians) <= count:
        return gaussians
    if rule == "scale":
        return gaussians[prune(gaussians, count)]
    gates.check_gaussians(gaussians)
    frame = ball_of(gaussians)
    framed = frame.local(gaussians)
    references = _references(framed)
    rows = _largest(_weights(framed, references), count)
    if rule == "contribution":
        return gaussians[rows]
    refined = _refined(framed, count, references)
    finite = all(np.isfinite(values).all() for values in refined.values.values())
    if not finite or _error(refined, references) >= _error(_state(framed[rows]), references):
        return gaussians[rows]
    return frame.world(_gaussians(refined))


def _references(gaussians: Gaussians) -> Pictures:
    """Renders of Gaussians in the unit ball."""
    viewmats = viewmats_around(directions_around(CAMERAS), np.zeros(3), 1.0)
    rgba = np.empty((CAMERAS, SIZE, SIZE, 4), np.uint8)
    with torch.no_grad():
        for picture, viewmat in zip(rgba, torch.from_numpy(viewmats), strict=True):
            image, alpha = (t[0].numpy() for t in render_with_alpha(gaussians, viewmat[None], SIZE, background=0.0))
            straight = np.clip(image / np.maximum(alpha, 1e-6), 0, 1)
            picture[:] = np.rint(255 * np.concatenate([straight, alpha], axis=-1))
    return Pictures.of(rgba, viewmats, intrinsics(SIZE, CAMERAS).numpy())


def _weights(gaussians: Gaussians, references: Pictures) -> Floats:
    """Sum of T alpha of each Gaussian over the pixels of all references, [M]."""
    state, still = _state(gaussians), dict.fromkeys(COLUMNS, 0.0)
    for camera in range(CAMERAS):
        state.step(references, [camera], (1, 1, 1), still, _LOSS, MAX_ALPHA)
    return state.weights.astype(np.float64)


def _refined(gaussians: Gaussians, count: int, references: Pictures) -> PlainStep:
    """Prune in rounds to `count`, by equal factors, and train what is left on the references."""
    state, generator = _state(gaussians), np.random.default_rng(0)
    factor = (count / len(gaussians)) ** (1 / ROUNDS)
    bounds = [*(max(count, round(len(gaussians) * factor**k)) for k in range(1, ROUNDS)), count]
    rounds = dict(zip((k * _LAST_ROUND // (ROUNDS - 1) for k in range(ROUNDS)), bounds, strict=True))
    for step in range(STEPS):
        if step in rounds:
            costs, _ = state.removal_costs(references, generator.random((CAMERAS, 3)), MAX_ALPHA)
            keep = np.zeros(len(state), np.bool_)
            keep[_largest(costs, rounds[step])] = True
            state.replace(keep, {name: rows[:0] for name, rows in state.values.items()})
        rates = {name: decayed(pair, step / STEPS) for name, pair in _RATES.items()}
        background = generator.random(3).tolist()
        state.step(references, [step * _STRIDE % CAMERAS], background, rates, _LOSS, MAX_ALPHA)
    return state


def _largest(values: Floats, count: int) -> NDArray[np.intp]:
    """Rows of the `count` largest values, ascending; ties keep the first."""
    return np.sort(np.argsort(-values, kind="stable")[:count])


def _error(state: PlainStep, references: Pictures) -> float:
    """Sum of the squared differences of the renders from the references, on white."""
    return state.removal_costs(references, np.ones((CAMERAS, 3)), MAX_ALPHA)[1]


def _state(gaussians: Gaussians) -> PlainStep:
    """Gaussians as they are trained; in float64, whose functions differ between processors by less than is kept."""
    opacities = np.clip(gaussians.opacities.astype(np.float64), *OPACITY_RANGE)
    return PlainStep(
        {
            "means": gaussians.means,
            "log_scales": np.log(gaussians.scales.astype(np.float64)),
            "quats": gaussians.quats,
            "logits": np.log(opacities / (1 - opacities)),
            "colors": gaussians.colors,
        }
    )


def _gaussians(state: PlainStep) -> Gaussians:
    """The Gaussians of a training."""
    values = state.values
    scales = np.exp(values["log_scales"].astype(np.float64))
    opacities = 1 / (1 + np.exp(-values["logits"].astype(np.float64)))
    return Gaussians(
        values["means"],
        scales.astype(np.float32),
        canonical_quats(values["quats"]),
        opacities.astype(np.float32),
        np.clip(values["colors"], 0, 1),
    )
