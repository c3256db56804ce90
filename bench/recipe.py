"""`make bench-recipe`: what each part of profile `quick` is worth, against the same fits without it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from bench.counts import PRIMITIVES, measured, objects
from bench.perceived import WEIGHTS
from bench.record import keep
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, load_profile
from gaussianverse.fitter.views import Views, split_heldout
from gaussianverse.pipeline.ops.evaluation.statistics import interval

VARIANTS: dict[str, dict[str, Any]] = {
    "no recycling": {"counts": {"recycle": 0.0}},
    "no pruning": {"counts": {"epsilon": 0.0}},
    "full size from the start": {"start_until": 0.0},
    "L1 to the end": {"loss": {"l2": 0.0}},
    "no averaging": {"average": 0.0},
    "half the views": {"heldout": "test"},
}
SLOW: dict[str, dict[str, Any]] = {
    "twice the steps": {"steps": 6000},
    "anchors": {"model": "anchors", "bake_at": 1.0, "counts": {"epsilon": 0.0}},
    "anchors, baked at a third": {"model": "anchors", "bake_at": 0.33},
}
if WEIGHTS.exists():
    CROPS = {"lpips_net": "alex", "lpips_weights": str(WEIGHTS), "lpips_every": 5, "lpips_crop": 96}
    VARIANTS["LPIPS on crops"] = {"loss": CROPS}
FACTORS = ("n", "cpu_s", "lpips") if WEIGHTS.exists() else ("n", "cpu_s")
"""What is kept as multiples of `quick`'s."""


def changed(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The table with these changes, table by table."""
    return {**table, **{k: {**table[k], **v} if isinstance(v, Mapping) else v for k, v in changes.items()}}


def halved(views: Views, heldout_every: int) -> Views:
    """Every second training view, and every `heldout_every`-th view, marked as a test split."""
    train, heldout = split_heldout(views, heldout_every)
    names = [*train.names[::2], *heldout.names]
    some = views[np.array([views.names.index(name) for name in names])]
    return replace(some, test=np.arange(len(names)) >= len(names) - len(heldout))


def effects(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Paired differences of each variant from the profile: held-out PSNR, and ratios of counts and CPU seconds."""
    base = {(row["object"], row["seed"]): row for row in table if row["variant"] == "quick"}
    found = {}
    for variant in dict.fromkeys(row["variant"] for row in table if row["variant"] != "quick"):
        pairs = [(row, base[row["object"], row["seed"]]) for row in table if row["variant"] == variant]
        psnr = np.array([row["psnr"] - of["psnr"] for row, of in pairs])
        found[variant] = {
            "psnr_db": float(psnr.mean()),
            "psnr_db_95": interval(psnr),
            **{key: float(np.mean([row[key] / of[key] for row, of in pairs])) for key in FACTORS},
        }
    return found


def main() -> None:
    """Fit each object by the profile and by each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--slow", action="store_true", help="the variants that take two to four times as long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile = load_profile("quick")["fit"]
    found = objects(options.objects + len(PRIMITIVES), profile["size"])
    chosen = list(islice((one for one in found if one[0] not in PRIMITIVES), options.objects))
    table: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for name, views in chosen:
            for variant, changes in {"quick": {}, **(SLOW if options.slow else VARIANTS)}.items():
                config = from_table(FitConfig, changed(profile, changes))
                row = measured(
                    halved(views, profile["heldout_every"]) if config.heldout == "test" else views, config, seed
                )
                table.append({"object": name, "seed": seed, "variant": variant, **row})
                sys.stderr.write(f"{table[-1]}\n")
        # what is there holds if a later seed is cut off
        keep(
            "recipe_slow" if options.slow else "recipe",
            {"objects": len(chosen), "seeds": seed + 1, "against_quick": effects(table), "table": table},
        )


if __name__ == "__main__":
    main()
