"""Fits of real objects that are kept and added to: seconds, steps/s, PSNR, counts, memory; tables over them.

A fit is done once for a setting, an object, a seed and a device: a later run goes on where the last one stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from bench.gpu.clock import Clock
from bench.gpu.settings import Weights
from bench.gpu.target import Target
from gaussianverse.fitter import FitConfig, fit_object, load_views
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

Row = dict[str, Any]
SLACK = 1.3
"""A fit is begun if this multiple of its predicted time is left."""


def digest(config: FitConfig) -> str:
    """Short digest of all settings but where weights lie."""
    table = dataclasses.asdict(config)
    table["loss"].pop("lpips_weights")
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


@cache
def views_of(folder: Path, size: int) -> Views:
    """Views of an object, which several fits take."""
    return load_views(folder, size=size)


def fitted(target: Target, folder: Path, config: FitConfig, seed: int, weights: Weights, deadline: float) -> Row:
    """Fit an object; LPIPS, by AlexNet where its weights are, is of the same held-out views as PSNR, on white."""
    config = target.fitted(config)
    views = views_of(folder, config.size)
    target.reset_peak()
    target.synchronize()
    start = time.perf_counter()
    fit = fit_object(views, config, seed=seed, deadline=time.monotonic() + deadline)
    target.synchronize()
    seconds = time.perf_counter() - start
    peak, stats, lpips = target.peak_mb(), fit.stats, None
    if weights.alex:
        alex, _ = load_lpips("alex", weights.alex, target.device)
        held = make_scene(fit.prepared.measured, target.device)
        lpips = float(np.mean(measure(fit.prepared.recall(fit.gaussians), held, "gsplat", alex).lpips))
    return {
        "seconds": seconds,
        "steps": config.steps,
        "steps_per_s": config.steps / float(stats["seconds_fit"]),
        "seconds_init": stats["seconds_init"],
        "psnr": stats["psnr"],
        "lpips_alex": lpips,
        "gaussians": stats["n_gaussians"],
        "gpu_mb": peak,
        "pixels": [views.width, views.height],
        "views": len(views),
        "metrics_on": stats["metrics_on"],
    }


def add(
    rows: list[Row],
    wanted: Iterable[tuple[str, FitConfig, Path, int]],
    target: Target,
    weights: Weights,
    clock: Clock,
    pace: Mapping[str, float],
) -> Iterator[None]:
    """Do wanted fits that are not among the rows, in order, while time is left; yields after each.

    Args:
        rows: fits so far; added to.
        wanted: (setting, configuration, folder of views, seed).
        target: the device.
        weights: LPIPS backbones.
        clock: time that is left to these fits.
        pace: seconds of a step by setting, for the first prediction; "" for others.
    """
    have = {(row["device"], row["digest"], row["object"], row["seed"]) for row in rows}
    for setting, config, folder, seed in wanted:
        mark = digest(config)
        if (target.name, mark, folder.name, seed) in have:
            continue
        took = [row["seconds"] for row in rows if row["device"] == target.name and row["digest"] == mark]
        predicted = max(took) if took else target.fitted(config).steps * pace.get(setting, pace.get("", 0.0))
        if clock.left() < SLACK * predicted:
            sys.stderr.write(f"{setting} of {folder.name}: {predicted:.0f} s needed, {clock.left():.0f} s left\n")
            continue
        row: Row = {"setting": setting, "object": folder.name, "seed": seed, "device": target.name, "digest": mark}
        row["lpips_net"] = config.loss.lpips_net
        try:
            row |= fitted(target, folder, config, seed, weights, clock.left())
        except FitError as error:
            sys.stderr.write(f"{setting} of {folder.name}: {error.reason}: {error}\n")
            if error.reason == "timeout":
                continue
            row |= {"error": f"{error.reason}: {error}"}
        sys.stderr.write(f"{row}\n")
        rows.append(row)
        yield


def _pairs(rows: list[Row], one: str, other: str) -> list[tuple[Row, Row]]:
    """Fits of the same object and seed by two settings."""
    found = {(row["setting"], row["object"], row["seed"]): row for row in rows if "error" not in row}
    keys = [key[1:] for key in found if key[0] == one and (other, *key[1:]) in found]
    return [(found[one, *key], found[other, *key]) for key in keys]


def profiles_table(rows: list[Row]) -> dict[str, Any]:
    """Means by profile, and what `fast` loses to `paper` on the same objects and seeds."""
    table: dict[str, Any] = {}
    for name in ("fast", "paper"):
        mine = [row for row in rows if row["setting"] == name and "error" not in row]
        if mine:
            means = {key: fmean(r[key] for r in mine) for key in ("seconds", "steps_per_s", "psnr", "gaussians")}
            counts = {"fits": len(mine), "objects": len({row["object"] for row in mine})}
            table[name] = {**counts, **means, "gpu_mb": max(row["gpu_mb"] for row in mine)}
    both = _pairs(rows, "paper", "fast")
    if both:
        table["paper_minus_fast_db"] = fmean(paper["psnr"] - fast["psnr"] for paper, fast in both)
        table["pairs"] = len(both)
    return table


def levers_table(rows: list[Row]) -> list[Row]:
    """A row a lever: seconds saved and dB lost against `fast` on the same objects and seeds."""
    table = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        both = _pairs(rows, name, "fast")
        if not both or name in ("fast", "paper"):
            continue
        table.append(
            {
                "lever": name,
                "fits": len(both),
                "seconds": fmean(lever["seconds"] for lever, _ in both),
                "saved_s": fmean(fast["seconds"] - lever["seconds"] for lever, fast in both),
                "lost_db": fmean(fast["psnr"] - lever["psnr"] for lever, fast in both),
                "gaussians": fmean(lever["gaussians"] for lever, _ in both),
            }
        )
    return table
