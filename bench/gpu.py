"""`make bench-gpu`: compare gsplat with the CPU kernels, then time the GPU profiles on the sample objects.

VGG's weights are not part of the project. Without `--lpips-weights` the profiles run without LPIPS and the result
says so; with other weights the time would not be the paper's.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from bench.objects import SAMPLE
from bench.record import keep
from bench.scenes import camera, surface
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, fit_object, load_profile, load_views
from gaussianverse.fitter.config import LossConfig
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.views import Views

FLIP = 1e-3
"""Image difference above which a pixel has flipped at a hard threshold."""


def drawn(backend: str, count: int, size: int, judged: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Render an image [H, W, 3], and the gradients of means, quats, scales, opacities and colors, on the CPU."""
    device = torch.device("cuda" if backend == "gsplat" else "cpu")
    tensors = [t.to(device).requires_grad_() for t in surface(count)]
    means, quats, scales, opacities, colors = tensors
    viewmats, Ks = (t.to(device) for t in camera(size))
    image, alpha, _ = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, size, size,
        backgrounds=torch.ones((1, 3), device=device), backend=backend,
    )  # fmt: skip
    weights = torch.rand((size, size, 4), generator=torch.Generator().manual_seed(0))
    if judged is not None:
        weights = weights * judged[..., None]
    both = torch.cat([image[0], alpha[0]], -1)
    (both * weights.to(both)).sum().backward()  # type: ignore[no-untyped-call]
    return image[0].detach().cpu().double(), [t.grad.cpu().double() for t in tensors if t.grad is not None]


def parity(one: str, other: str, count: int = 2000, size: int = 128) -> dict[str, float]:
    """Largest forward and relative gradient difference of two backends, over pixels that did not flip."""
    a, b = drawn(one, count, size)[0], drawn(other, count, size)[0]
    same = (a - b).abs().amax(-1) <= FLIP
    gradients = (drawn(backend, count, size, same)[1] for backend in (one, other))
    return {
        "flipped": float((~same).double().mean()),
        "forward": float((a - b).abs().amax(-1)[same].max()),
        "gradient": max(float((x - y).norm() / y.norm()) for x, y in zip(*gradients, strict=True)),
    }


def profile(name: str, weights: str) -> FitConfig:
    """A GPU profile with every eighth view held out, and with LPIPS only if `weights` are given."""
    config = from_table(FitConfig, {**load_profile(name)["fit"], "heldout_every": 8})
    net = config.loss.lpips_net if weights else "none"
    loss: LossConfig = dataclasses.replace(config.loss, lpips_net=net, lpips_weights=weights if net != "none" else "")
    return dataclasses.replace(config, loss=loss)


def timed(views: Views, config: FitConfig) -> dict[str, Any]:
    """Time one fit: total seconds, held-out PSNR on white, Gaussians, steps/s, GPU memory."""
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    fit = fit_object(views, config)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "steps_per_s": config.steps / float(fit.stats["seconds_fit"]),
        "psnr": fit.stats["psnr"],
        "gaussians": fit.stats["n_gaussians"],
        "gpu_mb": torch.cuda.max_memory_allocated() / 2**20,
    }


def growth_mb(views: Views, config: FitConfig, fits: int = 200) -> float:
    """Growth of allocated GPU memory over many short fits in one process, after the first ten."""
    short, after = dataclasses.replace(config, steps=30, size=128, start_size=0), 0.0
    for k in range(fits):
        fit_object(views, short, seed=k)
        if k == 9:
            after = torch.cuda.memory_allocated() / 2**20
    return torch.cuda.memory_allocated() / 2**20 - after


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lpips-weights", default="", help="absolute path of VGG16's state dict")
    parser.add_argument("--views", type=Path, nargs="*", help="view folders; default: the sample objects")
    parser.add_argument("--skip-paper", action="store_true", help="time only `fast`")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("error: torch finds no CUDA device; run this on a machine with an NVIDIA GPU\n")
        return 1
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "lpips": bool(options.lpips_weights)}
    result["parity"] = {other: parity("gsplat", other) for other in ("cpu", "reference")}
    folders = options.views or sorted(p for p in SAMPLE.iterdir() if p.is_dir())
    configs = {name: profile(name, options.lpips_weights) for name in ("fast", "paper")}
    if options.skip_paper:
        del configs["paper"]
    objects: dict[str, Any] = {}
    for folder in folders:
        views = load_views(folder)
        objects[folder.name] = {name: timed(views, config) for name, config in configs.items()}
        sys.stderr.write(f"{folder.name}: {objects[folder.name]}\n")
    result["objects"] = objects
    for name in configs:
        result[f"{name}_s_per_object"] = mean(o[name]["seconds"] for o in objects.values())
    if "paper" in configs:
        result["psnr_gap_db"] = mean(o["paper"]["psnr"] - o["fast"]["psnr"] for o in objects.values())
    result["growth_mb_over_200_fits"] = growth_mb(load_views(folders[0]), configs["fast"])
    keep("gpu", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
