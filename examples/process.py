"""Forward process of a diffusion model: its noise levels, and conversion between x0, v and epsilon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussianverse.examples.errors import TrainingError
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers imports

from diffusers import DDPMScheduler  # noqa: E402

SAMPLE, V, EPSILON = "sample", "v_prediction", "epsilon"
PREDICTIONS = (SAMPLE, V, EPSILON)
"""What a network predicts, in diffusers' words: x0, the clean atlas; v; or the noise."""
_SCHEDULER = "scheduler"


class Process:
    """Noise is added by `noisy = signal[t] * clean + sigma[t] * noise` at N times t, from little noise to much.

    Args:
        scheduler: diffusers' scheduler, whose configuration says what the network predicts.

    Attributes:
        scheduler: as given; samplers are made of its configuration.
        prediction: one of `PREDICTIONS`.
        signal, sigma: float32 [N], `signal**2 + sigma**2 = 1`.

    Raises:
        TrainingError: an unknown prediction, or epsilon where the last time has no signal: x0 does not follow of it.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.prediction = str(scheduler.config.prediction_type)
        if self.prediction not in PREDICTIONS:
            raise TrainingError(f"prediction {self.prediction!r} is none of {', '.join(PREDICTIONS)}")
        bar = scheduler.alphas_cumprod.double()
        self.signal, self.sigma = bar.sqrt().float(), (1 - bar).sqrt().float()
        if self.prediction == EPSILON and float(self.signal[-1]) == 0:
            raise TrainingError(
                "a network that predicts epsilon says nothing where the last time has no signal: use a schedule "
                f"without zero terminal SNR (--no-zero-snr), or predict {V} or {SAMPLE}"
            )

    def __len__(self) -> int:
        return len(self.signal)

    def to(self, device: torch.device) -> Process:
        """Move its tensors; returns itself."""
        self.signal, self.sigma = self.signal.to(device), self.sigma.to(device)
        return self

    def at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and sigma at these times, each [B, 1, 1, 1]."""
        return self.signal[times].view(-1, 1, 1, 1), self.sigma[times].view(-1, 1, 1, 1)

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Add noise, [B, C, S, S]."""
        signal, sigma = self.at(times)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network is to predict, [B, C, S, S]."""
        if self.prediction == SAMPLE:
            return clean
        if self.prediction == EPSILON:
            return noise
        signal, sigma = self.at(times)
        return signal * noise - sigma * clean

    def clean(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The x0 that follows of a network's output, [B, C, S, S]."""
        if self.prediction == SAMPLE:
            return output
        signal, sigma = self.at(times)
        if self.prediction == EPSILON:
            return (noisy - sigma * output) / signal
        return signal * noisy - sigma * output

    def save(self, folder: Path) -> None:
        """Write `folder/scheduler/scheduler_config.json`, as a diffusers pipeline has it."""
        self.scheduler.save_pretrained(folder / _SCHEDULER)


def make_process(prediction: str = SAMPLE, *, zero_snr: bool = True) -> Process:
    """Stable Diffusion's noise levels, 1000 times; with `zero_snr` rescaled so that the last one has no signal."""
    return Process(
        DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction,
            rescale_betas_zero_snr=zero_snr, clip_sample=False, timestep_spacing="trailing",
        )
    )  # fmt: skip


def load_process(folder: Path) -> Process:
    """The process of a checkpoint, as its `scheduler/scheduler_config.json` has it.

    Raises:
        TrainingError: there is none, or it cannot be used.
    """
    return Process(_scheduler_of(folder))


def checkpoint_process(
    folder: Path, prediction: str | None = None, *, zero_snr: bool | None = None, convert: bool = False
) -> Process:
    """The process in which to train on from a checkpoint: its own noise levels, clipping nothing.

    Args:
        folder: a diffusers pipeline.
        prediction: what the network shall predict; None = what the checkpoint predicts.
        zero_snr: rescale its noise levels so that the last one has no signal, as the paper does; None = yes, but for
            networks that predict epsilon.
        convert: train it to predict something else than it does.

    Raises:
        TrainingError: it has no scheduler, or predicts something else and `convert` is not set.
    """
    scheduler = _scheduler_of(folder)
    own = scheduler.config.prediction_type
    wanted = own if prediction is None else prediction
    if wanted != own and not convert:
        raise TrainingError(
            f"{folder}: the checkpoint predicts {own}, asked for is {wanted}: leave --prediction out to keep {own}, "
            f"or pass --convert to train it to predict {wanted}"
        )
    zero = wanted != EPSILON if zero_snr is None else zero_snr
    changed = {"prediction_type": wanted, "rescale_betas_zero_snr": zero, "clip_sample": False}
    made = DDPMScheduler.from_config(scheduler.config, timestep_spacing="trailing", thresholding=False, **changed)
    return Process(made)


def _scheduler_of(folder: Path) -> Any:
    if not (folder / _SCHEDULER / "scheduler_config.json").is_file():
        raise TrainingError(
            f"{folder}: no {_SCHEDULER}/scheduler_config.json, which says what the network predicts: pass a "
            "diffusers pipeline, or copy that file from where the checkpoint comes from"
        )
    return DDPMScheduler.from_pretrained(folder, subfolder=_SCHEDULER, local_files_only=True)
