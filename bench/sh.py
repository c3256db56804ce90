"""`python -m bench.sh [FIT.ply ...]`: what baking view-dependent colour keeps, against dropping it.

Every way is measured from the 24 cameras of `sh_psnr`, which differ from those of the baking, and from the cameras of
the object's own fit where `cameras.json` lies beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from bench.record import keep
from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.interchange.harmonics import ViewDependent
from gaussianverse.atlas.interchange.ply import read_view_dependent
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.pipeline.run.harmonics import BAKE_SIZE, BAKE_VIEWS, MEASURE_SIZE, STEPS, bake, sh_psnr

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "gaussianverse_samples"
WAYS = {
    "weighted_mean": (BAKE_VIEWS, BAKE_SIZE, 0),
    "one_step": (BAKE_VIEWS, BAKE_SIZE, 1),
    "product": (BAKE_VIEWS, BAKE_SIZE, STEPS),
    "five_steps": (BAKE_VIEWS, BAKE_SIZE, 5),
    "24_directions": (24, BAKE_SIZE, STEPS),
}
"""Cameras, side of their images in pixels, and conjugate-gradient steps."""


def uniform_mean(seen: ViewDependent, count: int = 256) -> Gaussians:
    """The mean over directions, all of one weight."""
    rays = np.random.default_rng(0).normal(size=(count, 3))
    eyes = 1e6 * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    colors = sum(seen.colors_from(eye) for eye in eyes) / count
    return replace(seen.gaussians, colors=np.clip(colors, 0, 1).astype(np.float32))


def own_psnr(seen: ViewDependent, baked: Gaussians, cameras: Path) -> float:
    """PSNR from the cameras of the object's fit."""
    mean, g = [], seen.gaussians
    for camera in json.loads(cameras.read_text()):
        rotation, eye = np.array(camera["rotation"]), np.array(camera["position"])
        viewmat, scale = np.eye(4, dtype=np.float32), MEASURE_SIZE / camera["width"]
        viewmat[:3, :3], viewmat[:3, 3] = rotation.T, -rotation.T @ eye
        half = MEASURE_SIZE / 2
        K = [[camera["fx"] * scale, 0, half], [0, camera["fy"] * scale, half], [0, 0, 1]]
        images = [
            rasterization(
                *(torch.from_numpy(np.asarray(a, np.float32)) for a in (g.means, g.quats, g.scales, g.opacities, c)),
                torch.from_numpy(viewmat)[None], torch.tensor([K], dtype=torch.float32), MEASURE_SIZE, MEASURE_SIZE,
                backgrounds=torch.ones(1, 3), backend="cpu",
            )[0].clamp(0, 1)
            for c in (seen.colors_from(eye), baked.colors)
        ]  # fmt: skip
        mean.append(float((images[0].double() - images[1].double()).square().mean()))
    return float(-10 * np.log10(fmean(mean)))


def measured(path: Path) -> dict[str, Any]:
    seen = read_view_dependent(path.read_bytes())
    cameras = path.with_name("cameras.json")
    bake(seen, 1, 16)  # compile
    row: dict[str, Any] = {"gaussians": len(seen), "degree": seen.degree, "ways": {}}
    ways = {"dropped": lambda: seen.gaussians, "uniform_mean": lambda: uniform_mean(seen)}
    ways |= {name: (lambda options=options: bake(seen, *options)) for name, options in WAYS.items()}
    for name, way in ways.items():
        started = time.process_time()
        baked = way()
        found = {"cpu_s": time.process_time() - started, "psnr": sh_psnr(seen, baked)}
        if cameras.exists():
            found["own_psnr"] = own_psnr(seen, baked, cameras)
        row["ways"][name] = found
        sys.stderr.write(f"{path.parent.name} {name}: {found}\n")
    return row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fits", nargs="*", type=Path, help="PLY files; default: the published samples")
    fits = parser.parse_args(arguments).fits or sorted(SAMPLES.glob("*/point_cloud.ply"))
    torch.set_num_threads(1)
    rows = {path.parent.name if path.stem == "point_cloud" else path.stem: measured(path) for path in fits}
    if not rows:
        sys.stderr.write("error: no fits; pass PLY files with spherical harmonics\n")
        return 1

    def gain(way: str, key: str) -> float:
        both = [(r["ways"][way].get(key), r["ways"]["dropped"].get(key)) for r in rows.values()]
        return fmean(a - b for a, b in both if a is not None)

    keys = [key for key in ("psnr", "own_psnr") if all(key in r["ways"]["dropped"] for r in rows.values())]
    keep(
        "sh",
        {
            "objects": len(rows),
            "gain_db": gain("product", "psnr"),
            "own_gain_db": gain("product", "own_psnr") if "own_psnr" in keys else -1.0,
            "cpu_s_max": max(r["ways"]["product"]["cpu_s"] for r in rows.values()),
            "gains": {way: {key: gain(way, key) for key in keys} for way in ["uniform_mean", *WAYS]},
            "table": rows,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
