"""What is measured: gsplat on a CUDA device, or, dry, its own torch code on the CPU, with small sizes throughout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gaussianverse.fitter import FitConfig, rasterize
from gaussianverse.fitter import fit as fit_module
from gaussianverse.fitter import training as training_module
from gaussianverse.fitter.memory import peak_mb, reset_peak
from gaussianverse.fitter.rasterize import Backend, Drawing

_STOOD_FOR = rasterize._load


@dataclass(frozen=True)
class Sizes:
    """How much each section does.

    Attributes:
        parity: Gaussians and side of the image that backends are compared on.
        golden: the same of the golden file.
        probe: steps of the shortened fits that rates and the profiler are taken from.
        short: steps of the fits that memory is watched over, and their side in pixels.
        fits: number of these fits.
        at_once: numbers of processes that fit at the same time.
        loaded: steps of each of their fits.
        batches: numbers of scenes in one batched step.
        scene: Gaussians and side of the image of these scenes.
        rounds: timed repetitions of a single step or distance.
        objects: objects that profiles are compared on, and those of them to do first.
        seeds: seeds of each.
    """

    parity: tuple[int, int] = (2000, 128)
    golden: tuple[int, int] = (600, 80)
    probe: int = 300
    short: tuple[int, int] = (30, 128)
    fits: int = 200
    at_once: tuple[int, ...] = (1, 2, 4, 8)
    loaded: int = 600
    batches: tuple[int, ...] = (1, 4, 16, 64)
    scene: tuple[int, int] = (10_000, 512)
    rounds: int = 20
    objects: tuple[int, int] = (16, 4)
    seeds: int = 2


DRY = Sizes(
    parity=(250, 48), golden=(150, 40), probe=8, short=(3, 32), fits=12, at_once=(1, 2), loaded=6, batches=(1, 2),
    scene=(60, 24), rounds=2, objects=(2, 1), seeds=1,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A device that gsplat renders on, or its stand-in."""

    dry: bool

    @property
    def device(self) -> torch.device:
        """Where tensors are."""
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def name(self) -> str:
        """The device's name."""
        return "dry: gsplat's torch code on the CPU" if self.dry else torch.cuda.get_device_name()

    @property
    def sizes(self) -> Sizes:
        """How much each section does."""
        return DRY if self.dry else Sizes()

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if not self.dry:
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Begin to watch the peak of memory; without a GPU that of the process."""
        if self.dry:
            reset_peak()
        else:
            torch.cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float:
        """Largest memory since `reset_peak` that tensors had on the GPU; without one that of the process, in MiB."""
        return peak_mb() if self.dry else torch.cuda.max_memory_allocated() / 2**20

    def allocated_mb(self) -> float:
        """Memory of tensors on the GPU, in MiB; 0 without one."""
        return 0.0 if self.dry else torch.cuda.memory_allocated() / 2**20

    def fitted(self, config: FitConfig) -> FitConfig:
        """A configuration as it is fitted here: dry, with the same branches and small in every direction."""
        if not self.dry:
            return config
        loss = dataclasses.replace(config.loss, lpips_crop=min(config.loss.lpips_crop, 32))
        return dataclasses.replace(
            config, size=40, start_size=min(config.start_size, 32), tau=240, initial_anchors=50,
            steps=max(8, config.steps // 250), relocate_every=min(config.relocate_every, 4), min_psnr=0.0,
            compared_views=0, loss=loss, growth=dataclasses.replace(config.growth, adjust_every=4, voxel=0.004),
        )  # fmt: skip


def _torch_code(drawing: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    from bench.gsplat_oracle import rasterization

    d = drawing
    return rasterization(
        d.means, d.quats, d.scales, d.opacities, d.colors, d.viewmats, d.Ks, d.width, d.height, d.backgrounds
    )


def _load(backend: str, device: torch.device) -> Backend:
    return _torch_code if backend == "gsplat" else _STOOD_FOR(backend, device)


def _resolved(backend: str) -> tuple[torch.device, str]:
    return torch.device("cpu"), "cpu" if backend == "auto" else backend


@contextmanager
def standing_in(target: Target) -> Iterator[None]:
    """Have backend "gsplat" run by gsplat's own torch code on the CPU, if the target is dry."""
    if not target.dry:
        yield
        return
    with (
        mock.patch.object(rasterize, "_load", _load),
        mock.patch.object(fit_module, "device_and_backend", _resolved),
        mock.patch.object(training_module, "device_and_backend", _resolved),
    ):
        yield


def batched(target: Target, *tensors: Tensor, width: int, height: int, backgrounds: Tensor) -> Tensor:
    """Images [B, 1, H, W, 3] of B scenes at once.

    `tensors` are what `rasterization` takes first, each with B in front: means [B, N, 3] to Ks [B, 1, 3, 3].
    """
    if target.dry:
        from bench.gsplat_oracle import rasterization

        scenes = zip(*tensors, backgrounds, strict=True)
        return torch.stack([rasterization(*each[:-1], width, height, each[-1])[0] for each in scenes])
    from gsplat import rasterization as of_gsplat

    image: Tensor = of_gsplat(*tensors, width, height, packed=False, backgrounds=backgrounds)[0]
    return image
