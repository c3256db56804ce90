"""`Trainer`: steps of a diffusion model of atlases, on one process or many, exact to the last digit when resumed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gaussianverse.atlas import AtlasDataset, AtlasLoader
from gaussianverse.atlas.reader.loader import AtlasBatch
from gaussianverse.examples import sampling
from gaussianverse.examples.captions import Embed, check_captions, dropped
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.losses import GroupWeights, weighted_loss
from gaussianverse.examples.networks import check_network, keep_fewer_activations
from gaussianverse.examples.photometric import PhotometricConfig, given_views, photometric_loss, rendered_views
from gaussianverse.examples.process import Process, make_process
from gaussianverse.examples.representation import Representation
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers imports

from diffusers.training_utils import EMAModel  # noqa: E402

BF16, FLOAT32, AUTO = "bf16", "float32", "auto"
PRECISIONS = (AUTO, BF16, FLOAT32)
_POSITION = "position"
_BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class TrainingConfig:
    """A training. The defaults suit small networks that start at random; docs/training.md has others.

    Attributes:
        steps: steps of the optimiser until the rate's cosine ends; None = `cpu_seconds` says when.
        cpu_seconds: CPU time of this process until then; such a training is not the same twice.
        batch_size: objects of a forward pass, on each rank.
        accumulate: forward passes of a step.
        workers: processes that read, on each rank; has no influence on what is learnt.
        learning_rate: highest rate of AdamW.
        final_rate: last rate, relative to that.
        warmup: steps in which the rate rises.
        position_rate: factor to the rate of parameters whose names contain "position": learned maps.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights; rises to it over the first steps.
        precision: "bf16" runs the network under autocast, "float32" does not; "auto" is bf16 on GPUs, and float32 on
            CPUs, where only those with AMX gain by bf16.
        gradient_checkpointing: compute activations twice, to keep fewer.
        weights: of the groups of channels.
        time_power: noise levels are drawn as u^time_power of the last one, with u uniform in 0 to 1: below 1, more
            of the high levels.
        caption_dropout: share of captions that are left out; 1 = learn without captions.
        photometric: the term of renders.
        seed: of weights that start at random, noise, noise levels and captions left out.
    """

    steps: int | None = None
    cpu_seconds: float | None = None
    batch_size: int = 4
    accumulate: int = 1
    workers: int = 0
    learning_rate: float = 2e-3
    final_rate: float = 0.02
    warmup: int = 100
    position_rate: float = 5.0
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.998
    precision: str = AUTO
    gradient_checkpointing: bool = False
    weights: GroupWeights = field(default_factory=GroupWeights)
    time_power: float = 1.0
    caption_dropout: float = 0.1
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        horizons = [h for h in (self.steps, self.cpu_seconds) if h is not None]
        if len(horizons) != 1 or horizons[0] <= 0:
            raise TrainingError(f"steps {self.steps}, cpu_seconds {self.cpu_seconds}: set one of them, above 0")
        counts = {name: getattr(self, name) for name in ("batch_size", "accumulate")}
        if min(counts.values()) < 1 or min(self.workers, self.warmup, self.seed) < 0:
            raise TrainingError(f"{counts}: at least 1; workers, warmup and seed: at least 0")
        if min(self.learning_rate, self.position_rate, self.clip, self.time_power) <= 0 or self.weight_decay < 0:
            raise TrainingError("learning_rate, position_rate, clip, time_power: above 0; weight_decay: at least 0")
        for name in ("caption_dropout", "ema", "final_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} {getattr(self, name)}: expected 0 to 1")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")


def processes() -> Accelerator:
    """accelerate's view of this process and the others; precision is left to `Trainer`."""
    # without `cpu`, processes on a machine without a GPU would not know of each other
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no")


class Trainer:
    """Trains a network on the atlases of a dataset.

    All random numbers of a step follow from (seed, step, forward pass, rank), so that a resumed training draws the
    same ones.

    Args:
        config: the training.
        dataset: read with `infinite=True`, so that each batch is full, and with `config.photometric.views_read`. With
            several ranks call `processes` first, since the dataset divides its samples over them.
        representation: what the network sees; of the same dataset.
        network: called as diffusers' UNet2DConditionModel, with `representation.channels_in` channels; it is trained
            in place.
        embed: embedding of captions.
        process: noise levels, and what the network predicts; None = x0, the last level without signal.

    Attributes:
        step: steps done.
        cpu_seconds: CPU time of this process that they took.
        rank: number of this process.

    Raises:
        TrainingError: these do not fit together.
    """

    def __init__(
        self, config: TrainingConfig, dataset: AtlasDataset, representation: Representation, network: nn.Module,
        embed: Embed, process: Process | None = None,
    ) -> None:  # fmt: skip
        self.accelerator = processes()
        self.device, self.rank = self.accelerator.device, self.accelerator.process_index
        self.config, self.dataset, self.embed = config, dataset, embed
        representation.check(dataset)
        config.photometric.check(dataset)
        check_captions(dataset, config.caption_dropout)
        self.representation = representation.to(self.device)
        self.process = (process or make_process()).to(self.device)
        self.network: Any = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        check_network(self.network, representation, embed)
        if config.gradient_checkpointing:
            keep_fewer_activations(self.network)
        self._model = self.accelerator.prepare_model(self.network)
        self._parameters = list(self.network.parameters())
        self.optimizer = _optimizer(self.network, config, fused=self.device.type in ("cpu", "cuda"))
        self.average = EMAModel(self._parameters, decay=config.ema, foreach=True)
        self._bf16 = config.precision == BF16 or (config.precision == AUTO and self.device.type == "cuda")
        self._weights = config.weights.per_channel().to(self.device)
        self._lpips = config.photometric.load_lpips(self.device)
        self.loader = AtlasLoader(dataset, config.batch_size, num_workers=config.workers)
        self._batches = self._endless()
        self.step, self.cpu_seconds = 0, 0.0
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        if self.config.steps is not None:
            return min(1.0, self.step / self.config.steps)
        return min(1.0, self.cpu_seconds / (self.config.cpu_seconds or 1.0))

    def train(self, until_step: int | None = None, until_cpu_seconds: float | None = None) -> None:
        """Train to the end, or until these; a later call goes on."""
        last = math.inf if until_step is None else until_step
        latest = math.inf if until_cpu_seconds is None else until_cpu_seconds
        before, begun = self.cpu_seconds, time.process_time()
        while self.progress < 1 and self.step < last and self.cpu_seconds < latest:
            self.update([next(self._batches) for _ in range(self.config.accumulate)])
            self.cpu_seconds = before + time.process_time() - begun

    def _endless(self) -> Iterator[AtlasBatch]:
        """Yield batches of pass after pass."""
        while True:
            yield from self.loader

    def rate(self) -> float:
        """Factor to the learning rate: a linear rise, and a cosine over the whole training."""
        rise = min(1.0, (self.step + 1) / (self.config.warmup + 1))
        low = self.config.final_rate
        return rise * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def update(self, batches: Sequence[AtlasBatch]) -> None:
        """Run one step of the optimiser on the batches of its forward passes."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.rate()
        self.network.train()
        for number, batch in enumerate(batches):
            last = number + 1 == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self._model):
                losses = self.losses(batch, number)
                self.accelerator.backward(torch.stack(list(losses.values())).sum() / len(batches))
            for name, loss in losses.items():
                before = self._sums.get(name, torch.zeros((), dtype=torch.float64, device=self.device))
                self._sums[name] = before + loss.detach().double() / len(batches)
        self.accelerator.clip_grad_norm_(self._parameters, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.step(self._parameters)
        self.step += 1
        self._summed += 1

    def losses(self, batch: AtlasBatch, number: int = 0) -> dict[str, Tensor]:
        """Losses of one forward pass, the pass `number` of this step: "diffusion", and "photometric" if weighted."""
        here = self._seeded(number)
        # a seed of its own: noise from the numbers that gave times and dropped captions would depend on them
        drawing = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=here)))
        clean = self.representation(batch["atlas"].to(self.device, torch.float32))
        noise = torch.randn(clean.shape, generator=drawing, device=self.device)
        times = self._times(len(clean), here).to(self.device)
        embedded = self.embed(dropped(batch["caption"], self.config.caption_dropout, here)).to(self.device)
        noisy = self.process.noisy(clean, noise, times)
        output = self._forward(self._model, noisy, times, embedded)
        losses = {"diffusion": weighted_loss(output, self.process.target(clean, noise, times), self._weights)}
        if self.config.photometric.weight:
            estimates = self.representation.inverse(self.process.clean(output, noisy, times))
            losses["photometric"] = self.config.photometric.weight * self._photometric(estimates, batch, here)
        return losses

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise levels, one of each of `count` equal parts, which makes the loss of a small batch less noisy."""
        parts = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
        share = (parts / count).pow(self.config.time_power)
        return (share * len(self.process)).long().clamp(max=len(self.process) - 1)

    def _photometric(self, estimates: Tensor, batch: AtlasBatch, generator: torch.Generator) -> Tensor:
        """Mean over some objects of the batch of their photometric loss."""
        term, points = self.config.photometric, self.representation.points
        found = []
        for chosen in torch.randperm(len(estimates), generator=generator)[: term.objects].tolist():
            if term.views_read:
                references = given_views(batch, chosen, term.views, self.device)
            else:
                actual = batch["atlas"][chosen].to(self.device, torch.float32)
                references = rendered_views(actual, points, term.views, term.size, generator)
            found.append(photometric_loss(estimates[chosen], points, references, self._lpips))
        return torch.stack(found).mean()

    def _seeded(self, number: int) -> torch.Generator:
        """Generator of the random numbers of a forward pass; torch's own, for dropout, is seeded as well."""
        key = f"{self.config.seed} {self.step} {number} {self.rank}"
        digest = hashlib.blake2b(key.encode(), digest_size=14).digest()
        torch.manual_seed(int.from_bytes(digest[:7]))
        return torch.Generator().manual_seed(int.from_bytes(digest[7:]))

    def _forward(self, model: Any, noisy: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            output: Tensor = model(self.representation.inputs(noisy), times, embedded).sample
        return output.float()

    def predict(self, noisy: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        """The network's output without gradients, see `sampling.Predict`."""
        with torch.no_grad():
            return self._forward(self.network, noisy, times, embedded)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within it the network has its averaged weights, and does not train."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self.average.copy_to(self._parameters)
        self.network.eval()
        try:
            yield
        finally:
            for parameter, value in zip(self._parameters, own, strict=True):
                parameter.data.copy_(value)

    def sample(
        self, captions: Sequence[str], *, seed: int = 0, steps: int = 25, guidance: float = 1.0,
        solver: str = sampling.DDIM, at_once: int = 16,
    ) -> Tensor:  # fmt: skip
        """Sample atlases with the averaged weights, one of each caption with seeds from `seed` on; see `sampling`."""
        with self.averaged_weights():
            return sampling.sample(
                self.predict, self.process, self.representation, self.embed, captions,
                seeds=range(seed, seed + len(captions)), steps=steps, guidance=guidance, solver=solver,
                at_once=at_once,
            )  # fmt: skip

    def mean_losses(self) -> dict[str, float]:
        """Mean losses of the steps since `take_losses`, over all ranks, each of which must call it, also before
        `state_dict`: a state has the sums of one rank for all.

        Raises:
            TrainingError: one is not finite.
        """
        self._sums = {name: self.accelerator.reduce(total, "mean") for name, total in self._sums.items()}
        found = {name: float(total) / self._summed for name, total in self._sums.items()}
        if not all(math.isfinite(loss) for loss in found.values()):
            raise TrainingError(
                f"step {self.step}: losses {found} are not finite: train anew in another folder with a lower "
                f"learning_rate than {self.config.learning_rate}, or with precision {FLOAT32}"
            )
        return found

    def take_losses(self) -> dict[str, float]:
        """`mean_losses`, which begin anew."""
        found = self.mean_losses()
        self._sums, self._summed = {}, 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on, on CPU or device as it is; the reader's state included."""
        return {
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reader": self.loader.state_dict(),
            "sums": {name: total.cpu() for name, total in self._sums.items()},
            "summed": self._summed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with any number of ranks and workers."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(dict(state["average"]))
        self.average.to(self.device)
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["reader"])
        self._batches = self._endless()
        self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
        self._sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self._summed = state["summed"]


def _optimizer(network: nn.Module, config: TrainingConfig, *, fused: bool) -> torch.optim.Optimizer:
    maps = [p for name, p in network.named_parameters() if _POSITION in name]
    others = [p for name, p in network.named_parameters() if _POSITION not in name]
    rates = ((others, config.learning_rate), (maps, config.learning_rate * config.position_rate))
    groups: list[dict[str, Any]] = [{"params": ps, "lr": rate, "initial_lr": rate} for ps, rate in rates if ps]
    return torch.optim.AdamW(groups, betas=_BETAS, weight_decay=config.weight_decay, fused=fused)
