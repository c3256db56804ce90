"""Sampling of atlases by DDIM or DPM-Solver++, with classifier-free guidance, many captions and seeds at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.examples.captions import Embed
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.process import Process
from gaussianverse.examples.representation import Representation
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers imports

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler  # noqa: E402

DDIM, DPM = "ddim", "dpm"
SOLVERS = (DDIM, DPM)
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A network's output [B, 16, S, S] of noisy values [B, 16, S, S], times [B] and embedded captions [B, T, D]."""


def solver_of(process: Process, name: str, steps: int) -> Any:
    """A diffusers scheduler that solves the process in so many steps: DDIM, or second-order DPM-Solver++.

    Raises:
        TrainingError: no such solver, or no such number of steps.
    """
    if name not in SOLVERS or not 1 <= steps <= len(process):
        raise TrainingError(
            f"solver {name!r} in {steps} steps: expected one of {', '.join(SOLVERS)} in 1 to {len(process)} steps"
        )
    config = process.scheduler.config
    made: Any
    if name == DDIM:
        # Stable Diffusion's schedulers end at the first noise level, whose 3 % of noise an atlas would keep
        made = DDIMScheduler.from_config(config, timestep_spacing="trailing", set_alpha_to_one=True)
    else:
        made = DPMSolverMultistepScheduler.from_config(
            config,
            algorithm_type="dpmsolver++",
            solver_order=2,
            timestep_spacing="trailing",
            final_sigmas_type="zero",
        )
    made.set_timesteps(steps)
    return made


@torch.no_grad()
def sample(
    predict: Predict, process: Process, representation: Representation, embed: Embed, captions: Sequence[str], *,
    seeds: Sequence[int], steps: int = 25, guidance: float = 1.0, solver: str = DDIM, at_once: int = 16,
) -> Tensor:  # fmt: skip
    """Sample one atlas of each caption, in its own units, [B, 16, S, S] on the representation's device.

    A sample depends on its caption and seed, not on what else is sampled.

    Args:
        predict: see `Predict`.
        process: what the network predicts, and at which noise levels.
        representation: what the network sees.
        embed: embedding of captions.
        captions: B captions; "" is none.
        seeds: B seeds of the noise.
        steps: evaluations of the network, two each with guidance.
        guidance: 1 = none; above 1, the difference that the caption makes is multiplied by it.
        solver: one of `SOLVERS`.
        at_once: samples of a forward pass, of twice as many rows with guidance.

    Raises:
        TrainingError: no captions, other numbers of captions and seeds, an unknown solver, too many steps.
    """
    if len(captions) != len(seeds) or not captions or at_once < 1:
        raise TrainingError(
            f"{len(captions)} captions, {len(seeds)} seeds, {at_once} at once: pass at least one caption, one seed "
            "for each, and at least 1 at once"
        )
    made = []
    for start in range(0, len(captions), at_once):
        part = slice(start, start + at_once)
        scheduler = solver_of(process, solver, steps)
        made.append(_solved(predict, scheduler, representation, embed, captions[part], seeds[part], guidance))
    return torch.cat(made)


def _solved(
    predict: Predict, scheduler: Any, representation: Representation, embed: Embed, captions: Sequence[str],
    seeds: Sequence[int], guidance: float,
) -> Tensor:  # fmt: skip
    size, device = representation.size, representation.mean.device
    guided = guidance != 1 and any(captions)
    embedded = embed([*captions, *[""] * len(captions)] if guided else captions).to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = [torch.randn(CHANNELS, size, size, generator=generator) for generator in generators]
    state: Tensor = torch.stack(noise).to(device) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        times = torch.full((len(embedded),), int(time), device=device)
        output = predict(torch.cat([state, state]) if guided else state, times, embedded)
        if guided:
            of_caption, without = output.chunk(2)
            output = without + guidance * (of_caption - without)
        state = scheduler.step(output, time, state).prev_sample
    return representation.inverse(state)
