"""`make bench-fit`: PSNR over CPU seconds on an analytic object, on mic, and on the sample objects."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.objects import SAMPLE, analytic, mic
from bench.record import keep
from bench.scenes import camera, surface
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, fit_object, load_profile, load_views
from gaussianverse.fitter.anchors import make_anchors
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

CPU = torch.device("cpu")


def profile(**changes: Any) -> FitConfig:
    """Profile `cpu` with all views for training, and changes."""
    tables = {**load_profile("cpu")["fit"], "heldout_every": 0}
    return dataclasses.replace(from_table(FitConfig, tables), **changes)


def run(train: Views, test: Views, config: FitConfig, seed: int = 0) -> dict[str, float]:
    """Fit, and measure on the test views on white: psnr, ssim, gaussians, CPU seconds including metrics."""
    start = time.process_time()
    fit = fit_object(train, config, seed=seed)
    seconds = time.process_time() - start
    metrics = measure(fit.gaussians, make_scene(fit.prepared.placed.views(test), CPU), "cpu")
    result = {
        "psnr": float(np.mean(metrics.psnr)),
        "ssim": float(np.mean(metrics.ssim)),
        "gaussians": len(fit.gaussians),
        "seconds": seconds,
    }
    sys.stderr.write(f"{config.size} px, {config.steps} steps, tau {config.tau}, {config.model}: {result}\n")
    return result


def step_ms(count: int = 10_000, size: int = 128) -> dict[str, float]:
    """Median thread CPU milliseconds of a training step with `count` Gaussians decoded from anchors."""
    means = surface(count // 2)[0]
    anchors = make_anchors(means, torch.full((len(means),), 0.02), 4, 32, torch.Generator().manual_seed(0))
    with torch.no_grad():
        # half of the 4 x count/2 offsets exist: exactly `count` Gaussians
        opacities = anchors.opacities().reshape(-1)
        anchors.alive = (torch.argsort(torch.argsort(-opacities)) < count).reshape(-1, 4)
        anchors.heads["opacity_b1"] += float(-torch.atanh(opacities.sort(descending=True)[0][count - 1])) + 1e-3
    adam = RowAdam(anchors.parameters(), {name: (1e-5, 1e-5) for name in anchors.parameters()})
    for name, tensor in adam.tensors.items():
        if name in anchors.heads:
            anchors.heads[name] = tensor
        else:
            setattr(anchors, name, tensor)
    view, K = camera(size)
    target = torch.rand((1, size, size, 3), generator=torch.Generator().manual_seed(0))
    white = torch.ones((1, 3))
    times: dict[str, list[float]] = {"decode": [], "render": [], "loss": [], "backward": [], "adam": [], "step": []}
    drawn = 0
    for i in range(40):
        marks = [time.thread_time()]
        d = anchors.decode()
        marks.append(time.thread_time())
        image, _, _ = rasterization(
            d.means, d.quats, d.scales, d.opacities, d.colors, view, K, size, size, backgrounds=white, backend="cpu"
        )
        marks.append(time.thread_time())
        l1, ssim = l1_ssim(image, target)
        loss = 0.8 * l1 + 0.2 * (1 - ssim) + 0.01 * d.scales.prod(1).mean()
        marks.append(time.thread_time())
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(time.thread_time())
        adam.step(0.0)
        marks.append(time.thread_time())
        drawn = len(d.means)
        if i >= 5:
            for name, a, b in zip(times, marks, marks[1:], strict=False):
                times[name].append(1e3 * (b - a))
            times["step"].append(1e3 * (marks[-1] - marks[0]))
    return {name: median(values) for name, values in times.items()} | {"gaussians": drawn}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out mic and the sample objects")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"background": "white", "threads": 1}
    result["step"] = step_ms()
    result["step_ms_10k_128"] = result["step"]["step"]
    train, test = analytic(128)
    steps = (500, 1000, 2000, 3000, 3500, 4000, 5000)
    curve = [
        run(train, test, profile(size=128, steps=n, start_size=64, start_until=0.2, bake_at=0.25)) | {"steps": n}
        for n in steps
    ]
    within = [r["psnr"] for r in curve if r["seconds"] <= 30]
    result["analytic"] = curve
    result["analytic_psnr_30s"] = max(within) if within else math.nan
    if not options.quick:
        _real(result)
    keep("fit", result)
    return 0


def _real(result: dict[str, Any]) -> None:
    for size in (128, 200, 400):
        views = mic(size)
        if views is None:
            sys.stderr.write("mic: data is absent, left out\n")
            break
        config = profile(size=size, start_size=size // 2)
        result[f"mic{size}_10k"] = run(*views, config)
        if size == 400:
            result["mic400"] = run(*views, dataclasses.replace(config, tau=192**2, initial_anchors=96**2))
            # our plain model without a bound: the same views, steps and rasteriser
            unbounded = dataclasses.replace(config, model="plain", tau=10**6, initial_anchors=20_000)
            result["mic400_unbounded"] = run(*views, unbounded)
            result["mic400_psnr"] = result["mic400"]["psnr"]
            result["mic400_gaussians"] = result["mic400"]["gaussians"]
            result["mic400_unbounded_psnr"] = result["mic400_unbounded"]["psnr"]
    result["samples"] = {}
    for folder in sorted(p for p in SAMPLE.iterdir() if p.is_dir()):
        start = time.process_time()
        fit = fit_object(load_views(folder), from_table(FitConfig, load_profile("cpu")["fit"]))
        result["samples"][folder.name] = {
            "psnr": fit.stats["psnr"],
            "ssim": fit.stats["ssim"],
            "gaussians": fit.stats["n_gaussians"],
            "seconds": time.process_time() - start,
        }
        sys.stderr.write(f"{folder.name}: {result['samples'][folder.name]}\n")


if __name__ == "__main__":
    sys.exit(main())
