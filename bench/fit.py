"""`make bench-fit`: PSNR over CPU seconds on an analytic object, on mic, and on the sample objects."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from typing import Any

import numpy as np
import torch

from bench.objects import SAMPLE, analytic, mic
from bench.perceived import lpips_of, lpips_on
from bench.record import keep
from bench.step import SIZES, best_ms, native, references
from bench.step import start as begun
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, fit_object, load_profile, load_views
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

CPU = torch.device("cpu")


def profile(**changes: Any) -> FitConfig:
    """Profile `quick` with all views for training, and changes."""
    tables = {**load_profile("quick")["fit"], "heldout_every": 0}
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
        "lpips": lpips_on(fit.gaussians, fit.prepared.placed.views(test)),
        "gaussians": len(fit.gaussians),
        "seconds": seconds,
    }
    sys.stderr.write(f"{config.size} px, {config.steps} steps, tau {config.tau}, {config.model}: {result}\n")
    return result


def step_ms() -> dict[str, float]:
    """CPU milliseconds of a native training step, as `bench.step` measures it."""
    found = {}
    for size, count in SIZES:
        times = best_ms({"step": native(begun(count), references(size))})
        found[f"step_ms_{round(count / 1000)}k_{size}"] = times["step"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out mic and the sample objects")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"background": "white", "threads": 1, **step_ms()}
    train, test = analytic(128)
    steps = (500, 1000, 2000, 3000, 3500, 4000, 5000)
    curve = [
        run(train, test, profile(size=128, steps=n, start_size=64, start_until=0.2)) | {"steps": n} for n in steps
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
            # without a bound, and without pruning: the same views, steps and rasteriser
            counts = dataclasses.replace(config.counts, epsilon=0.0)
            unbounded = dataclasses.replace(config, tau=10**6, initial_anchors=20_000, counts=counts)
            result["mic400_unbounded"] = run(*views, unbounded)
            result["mic400_psnr"] = result["mic400"]["psnr"]
            result["mic400_gaussians"] = result["mic400"]["gaussians"]
            result["mic400_unbounded_psnr"] = result["mic400_unbounded"]["psnr"]
    asked = {"avocado": 38.9, "boombox": 30.6, "spot": 39.7, "waterbottle": 38.9}
    result["samples"] = {}
    for folder in sorted(p for p in SAMPLE.iterdir() if p.is_dir()):
        start = time.process_time()
        fit = fit_object(load_views(folder), from_table(FitConfig, load_profile("quick")["fit"]))
        cpu_seconds = time.process_time() - start
        result["samples"][folder.name] = {
            "psnr": fit.stats["psnr"],
            "ssim": fit.stats["ssim"],
            "lpips": lpips_of(fit.gaussians, fit.prepared),
            "gaussians": fit.stats["n_gaussians"],
            "cpu_seconds": cpu_seconds,
            "seconds_by_phase": {k: fit.stats[f"seconds_{k}"] for k in ("init", "fit", "metrics")},
        }
        sys.stderr.write(f"{folder.name}: {result['samples'][folder.name]}\n")
    samples = result["samples"].values()
    result["sample_cpu_s_max"] = max(sample["cpu_seconds"] for sample in samples)
    result["sample_psnr_min_change_db"] = min(result["samples"][uid]["psnr"] - psnr for uid, psnr in asked.items())


if __name__ == "__main__":
    sys.exit(main())
