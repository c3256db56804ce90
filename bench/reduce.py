"""`make bench-reduce`: what an object with more Gaussians than cells loses to an atlas, by the rule of reduction.

Also what an atlas of 192 x 192, which holds most of them, costs: a process that packs one.

    python -m bench.reduce [NAME.npz ..]

Objects are a statue of 58,649 Gaussians from elsewhere, fits of the sample's meshes at 512 px with the paper's bound
of 36,864, which have views that they did not see, and files of `python -m gaussianverse.fitter`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.counts import drawn
from bench.objects import SHARED
from bench.paper import CELLS, MESHES, filled
from bench.record import keep
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.atlas.interchange.published import visible
from gaussianverse.fitter import Fit, FitConfig, fit_object
from gaussianverse.fitter.config import REDUCTIONS
from gaussianverse.fitter.fit import measure_published
from gaussianverse.fitter.reduce import reduce
from gaussianverse.manifests.rendering.meshes import load_mesh
from gaussianverse.pipeline.run.fidelity import atlas_psnr

# not getrusage's peak, which a process inherits from the one that starts it
_PACK = """
import re, sys, time
from gaussianverse.atlas.__main__ import main
failed = main(sys.argv[1:])
print(time.process_time(), re.search(r"VmHWM:\\s+([0-9]+)", open("/proc/self/status").read())[1])
sys.exit(failed)
"""
STATUE = SHARED / "splats_real" / "massa_statue_sh0.ply"


def fitted(name: str) -> Fit:
    """The fit of a mesh with up to 36,864 Gaussians."""
    config = filled()
    return fit_object(drawn(load_mesh(SHARED / "meshes" / f"{name}.glb"), config.size), config)


def objects(files: list[Path]) -> Iterator[tuple[str, Gaussians, Fit | None]]:
    """Name and Gaussians of each object, and the fit that they come from, if there are views of it."""
    if STATUE.is_file():
        statue = read_ply(STATUE.read_bytes())
        yield "statue", statue[visible(statue)], None
    for file in files:
        yield file.stem, Gaussians.load(file), None
    for name in MESHES:
        fit = fitted(name)
        yield name.lower(), fit.gaussians, fit


def heldout_psnr(gaussians: Gaussians, fit: Fit | None) -> float:
    """Mean PSNR in dB on the views that the fit did not see; -1 without views."""
    if fit is None:
        return -1.0
    return float(np.mean(measure_published(gaussians, fit.prepared, "cpu", FitConfig().max_alpha).psnr))


def packed(gaussians: Gaussians, size: int) -> dict[str, float]:
    """CPU seconds and peak MB of `python -m gaussianverse.atlas pack`, a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        fit, made = Path(folder) / "fit.npz", Path(folder) / "atlas.npy"
        gaussians.save(fit)
        command = [sys.executable, "-c", _PACK, "pack", str(fit), str(made), "--size", str(size)]
        seconds, peak_kb = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return {"cpu_s": float(seconds), "peak_mb": int(peak_kb) / 1024}


def main() -> int:
    """Reduce each object by each rule and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="NAME.npz", help="more Gaussians to reduce")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    whole_atlas: list[dict[str, Any]] = []
    for name, gaussians, fit in objects(options.files):
        whole = {"object": name, "gaussians": len(gaussians), "whole_heldout_psnr": heldout_psnr(gaussians, fit)}
        for rule in REDUCTIONS:
            started = time.process_time()
            reduced = reduce(gaussians, CELLS, rule)
            seconds = time.process_time() - started
            row = {
                **whole,
                "rule": rule,
                "cpu_s": seconds,
                "atlas_psnr": atlas_psnr(gaussians, reduced),
                "psnr_512": atlas_psnr(gaussians, reduced, 512),
                "heldout_psnr": heldout_psnr(reduced, fit),
            }
            table.append(row)
            sys.stderr.write(f"{row}\n")
        whole_atlas.append({"object": name, **{str(size): packed(gaussians, size) for size in (128, 192)}})
        sys.stderr.write(f"{whole_atlas[-1]}\n")
    keep("reduce", {"cells": CELLS, "table": table, "whole_atlas": whole_atlas})
    return 0


if __name__ == "__main__":
    sys.exit(main())
