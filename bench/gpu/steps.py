"""What a step costs: rates of shortened fits, a profiler's table, LPIPS by backbone, and many scenes in one step."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.gpu.fits import views_of
from bench.gpu.target import Target, batched
from bench.scenes import camera, surface
from gaussianverse.fitter import FitConfig, fit_object
from gaussianverse.fitter.config import LPIPS_MIN_SIDE
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.vision import import_torchvision

Distance = Callable[[Tensor, Tensor], Tensor]
ROWS = 15
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def shortened(target: Target, config: FitConfig, steps: int) -> FitConfig:
    """A fit in fewer steps; growth, which counts in fractions of them, goes as far."""
    return dataclasses.replace(target.fitted(config), steps=steps, min_psnr=0.0)


def rate(target: Target, folder: Path, config: FitConfig) -> dict[str, Any]:
    """Milliseconds of a step, by a shortened fit after one that loads what is loaded once."""
    views = views_of(folder, target.fitted(config).size)
    fit_object(views, shortened(target, config, max(3, target.sizes.probe // 20)))
    fit = fit_object(views, shortened(target, config, target.sizes.probe))
    return {
        "ms_per_step": 1e3 * float(fit.stats["seconds_fit"]) / target.sizes.probe,
        "steps": target.sizes.probe,
        "gaussians": fit.stats["n_gaussians"],
    }


def profiled(target: Target, folder: Path, config: FitConfig) -> dict[str, Any]:
    """Where a short fit's time goes: its costliest kernels on the GPU, its costliest operations on the CPU.

    Kernels are not there without a GPU. Launches and waits are calls from the CPU; the profiler itself costs time.
    """
    steps = max(3, target.sizes.probe // 5)
    short, views = shortened(target, config, steps), views_of(folder, target.fitted(config).size)
    activities = [ProfilerActivity.CPU] if target.dry else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as recorded:
        fit_object(views, short)
    events = recorded.key_averages()
    # an operation's device time is that of the kernels it launched, which are events of their own
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    operations = [event for event in events if event.device_type == DeviceType.CPU]

    def table(of: list[Any], time_of: str) -> list[dict[str, Any]]:
        costliest = sorted(of, key=attrgetter(time_of), reverse=True)[:ROWS]
        return [
            {"name": e.key[:120], "calls_per_step": e.count / steps, "ms_per_step": getattr(e, time_of) / 1e3 / steps}
            for e in costliest
        ]

    def calls(names: tuple[str, ...]) -> float:
        return sum(int(event.count) for event in operations if event.key in names) / steps

    return {
        "steps": steps,
        "device_ms_per_step": sum(e.self_device_time_total for e in kernels) / 1e3 / steps,
        "cpu_ms_per_step": sum(e.self_cpu_time_total for e in operations) / 1e3 / steps,
        "launches_per_step": calls(_LAUNCHES),
        "waits_per_step": calls(_WAITS),
        "kernels": table(kernels, "self_device_time_total"),
        "operations": table(operations, "self_cpu_time_total"),
    }


def timed(target: Target, run: Callable[[], object]) -> float:
    """Median milliseconds of a run, after two that are not counted."""
    times = []
    for k in range(target.sizes.rounds + 2):
        target.synchronize()
        start = time.perf_counter()
        run()
        target.synchronize()
        if k >= 2:
            times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def random_trunk(net: str, folder: Path) -> Path:
    """Write the weights of an untrained backbone; it takes the time of the trained one and has none of its values."""
    import_torchvision()
    import torchvision

    names = {"vgg": "vgg16", "alex": "alexnet"}
    torch.manual_seed(0)
    path = folder / f"{net}_random.pth"
    torch.save(getattr(torchvision.models, names[net])(weights=None).features.state_dict(), path)
    return path


def lpips_costs(target: Target) -> dict[str, Any]:
    """Milliseconds of LPIPS, forward and backward, by backbone, type and side; all trunks are random: times only."""
    side = target.sizes.scene[1]
    found: dict[str, Any] = {"random_trunks": True}
    with tempfile.TemporaryDirectory() as folder:
        for net in ("vgg", "alex"):
            distance, _ = load_lpips(net, random_trunk(net, Path(folder)), target.device)
            for size in dict.fromkeys(max(s, LPIPS_MIN_SIDE[net]) for s in (side, side // 2)):
                for name, bf16 in (("", False), ("_bf16", True)):
                    found[f"{net}_{size}px{name}_ms"] = timed(target, lpips_step(target, distance, size, bf16))
    return found


def lpips_step(target: Target, distance: Distance, size: int, bf16: bool) -> Callable[[], None]:
    """LPIPS of two random images and its gradient."""
    image, reference = (torch.rand((1, size, size, 3), device=target.device) for _ in range(2))
    image.requires_grad_()

    def run() -> None:
        with torch.autocast(target.device.type, torch.bfloat16, enabled=bf16):
            loss = distance(image, reference)
        loss.backward()  # type: ignore[no-untyped-call]

    return run


def batch(target: Target) -> list[dict[str, Any]]:
    """Cost of a step of several scenes at once, by their number; scenes have equal counts and equal sizes.

    The product fits one object at a time: this is what a batched fit could reach.
    """
    found = []
    for scenes in target.sizes.batches:
        step = batched_step(target, scenes)
        target.reset_peak()
        ms = timed(target, step)
        found.append({"scenes": scenes, "ms": ms, "ms_per_scene": ms / scenes, "gpu_mb": target.peak_mb()})
    return found


def batched_step(target: Target, scenes: int) -> Callable[[], None]:
    """A step of plain Gaussians of several scenes: render, L1 and SSIM, backward, Adam."""
    count, size = target.sizes.scene
    tensors = [torch.stack([t] * scenes).to(target.device).requires_grad_() for t in surface(count)]
    cameras = [torch.stack([t] * scenes).to(target.device) for t in camera(size)]
    white = torch.ones((scenes, 1, 3), device=target.device)

    def render() -> Tensor:
        return batched(target, *tensors, *cameras, width=size, height=size, backgrounds=white)[:, 0]

    with torch.no_grad():
        reference = 0.9 * render()
    adam = torch.optim.Adam(tensors, lr=1e-4, fused=True)

    def step() -> None:
        l1, ssim = l1_ssim(render(), reference)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        adam.step()
        adam.zero_grad(set_to_none=True)

    return step
