"""`make bench-paper`: the paper's settings on the CPU, and the best fit had with as many Gaussians. Takes hours.

Both are fitted once per mesh, at 512 px with every eighth view held out; `make bench-fit512` compares profile `cpu`
with them. LPIPS is left out, for which the paper's VGG weights would be needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.counts import drawn
from bench.objects import SHARED
from bench.perceived import lpips_of
from bench.record import RESULTS, keep
from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.padding import prune
from gaussianverse.fitter import FitConfig, load_profile
from gaussianverse.fitter.fit import fit_prepared, measure_published
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.views import Views
from gaussianverse.manifests.rendering.meshes import load_mesh

MESHES = ("BoomBox", "Spot")
CELLS = 128 * 128


def filled(**changes: Any) -> FitConfig:
    """Profile `cpu` with the paper's bound of 36,864, which its fits fill, and changes."""
    table = {**load_profile("cpu")["fit"], "tau": 36_864, "initial_anchors": 9216, **changes}
    return from_table(FitConfig, {**table, "counts": {**table["counts"], "epsilon": 0.0}})


def settings(kind: str) -> FitConfig:
    """The paper's 36,864 Gaussians: "paper", by its anchors in 20,000 steps; "best", plain ones in 10,000."""
    if kind == "paper":
        table = {**load_profile("paper")["fit"], "backend": "cpu", "heldout_every": 8}
        return from_table(FitConfig, {**table, "loss": {**table["loss"], "lpips_net": "none"}})
    return filled(steps=10_000)


def fitted(views: Views, kind: str, kept: Path) -> dict[str, Any]:
    """A fit and its CPU seconds, from `kept`.npz and .json if they are there; and what the paper's rule leaves of it.

    `atlas_psnr` is the held-out PSNR of the 16,384 Gaussians with the largest scales.
    """
    config = settings(kind)
    prepared = prepare(views, config)
    file, facts = kept.with_suffix(".npz"), kept.with_suffix(".json")
    if not facts.exists():
        started = time.process_time()
        fit = fit_prepared(prepared, config)
        file.write_bytes(fit.gaussians.to_bytes())
        facts.write_text(json.dumps({"cpu_s": time.process_time() - started, "steps": config.steps}))
    gaussians = Gaussians.from_bytes(file.read_bytes())

    def psnr(chosen: Gaussians) -> float:
        return float(np.mean(measure_published(chosen, prepared, "cpu", config.max_alpha).psnr))

    return {
        **json.loads(facts.read_text()),
        "n": len(gaussians),
        "psnr": psnr(gaussians),
        "lpips": lpips_of(gaussians, prepared),
        "atlas_psnr": psnr(gaussians[prune(gaussians, CELLS)]),
    }


def rows() -> list[dict[str, Any]]:
    """Rows of the last run of this benchmark; none if it never ran."""
    path = RESULTS / "paper.json"
    return list(json.loads(path.read_text())["table"]) if path.exists() else []


def main() -> None:
    """Fit each mesh in both ways and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=Path, required=True, help="folder that keeps the fits; a later run takes them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.fits.mkdir(parents=True, exist_ok=True)
    table: list[dict[str, Any]] = []
    for mesh in MESHES:
        views = drawn(load_mesh(SHARED / "meshes" / f"{mesh}.glb"), 512)
        for kind in ("paper", "best"):
            row = fitted(views, kind, options.fits / f"{mesh}_{kind}")
            table.append({"object": mesh.lower(), "kind": kind, **row})
            sys.stderr.write(f"{table[-1]}\n")
    keep("paper", {"table": table})


if __name__ == "__main__":
    main()
