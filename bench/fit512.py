"""`make bench-fit512`: quality, counts and CPU seconds of profile `cpu`, of the sample's meshes at 512 px."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch

from bench import paper
from bench.counts import drawn, measured
from bench.memory import peak_mb
from bench.objects import SHARED
from bench.record import keep
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, load_profile
from gaussianverse.manifests.rendering.meshes import load_mesh


def against(table: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the objects of `bench.paper`; the bound of `cpu` is an atlas's cells, so its PSNR is the atlas's."""
    kept = {(row["object"], row["kind"]): row for row in paper.rows()}
    compared = [row for row in table if (row["object"], "paper") in kept]
    if not compared:
        return {}

    def mean(of: str, kind: str) -> float:
        return float(np.mean([kept[row["object"], kind][of] for row in compared]))

    psnr = float(np.mean([row["psnr"] for row in compared]))
    return {
        "cpu_ratio_to_paper": mean("cpu_s", "paper") / float(np.mean([row["cpu_s"] for row in compared])),
        "atlas_gain_db": psnr - mean("atlas_psnr", "paper"),
        "atlas_gap_db": mean("psnr", "best") - psnr,
    }


def main() -> int:
    """Fit each mesh and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = from_table(FitConfig, load_profile("cpu")["fit"])
    table: list[dict[str, Any]] = []
    for file in sorted((SHARED / "meshes").glob("*.glb")):
        views = drawn(load_mesh(file), config.size)
        for seed in range(options.seeds):
            table.append({"object": file.stem.lower(), "seed": seed, **measured(views, config, seed)})
            sys.stderr.write(f"{table[-1]}\n")
    if not table:
        raise SystemExit(f"{SHARED / 'meshes'} has no meshes")
    seconds = [row["cpu_s"] for row in table]
    spot = load_mesh(SHARED / "meshes" / "Spot.glb")
    result = {
        "objects": len({row["object"] for row in table}),
        "seeds": options.seeds,
        "cpu_s_per_object": float(np.mean(seconds)),
        "gaussians": float(np.mean([row["n"] for row in table])),
        **against(table),
        "peak_mb_40": peak_mb(spot, 40, 512, "cpu"),
        "peak_mb_400": peak_mb(spot, 400, 400, "cpu"),
        "table": table,
    }
    keep("fit512", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
