"""`make bench-ranking`: PSNR of the visibility ranking against other ways to keep the bound.

Anchors are kept to the last step, as in the paper: early baking refills what the ranking dropped and would hide the
difference.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from statistics import mean, stdev

import numpy as np
import torch

from bench.objects import SAMPLE, mic
from bench.record import keep
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, fit_object, load_profile, load_views
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views, split_heldout

RANKINGS = ("gaussian+anchor", "gaussian", "opacity", "random")
TAUS, SEEDS, SIZE = (2000, 4000, 8000), (0, 1, 2), 200


def objects() -> dict[str, tuple[Views, Views]]:
    """Training and test views of mic, if present, and of two sample objects."""
    found = {}
    views = mic(SIZE)
    if views is None:
        sys.stderr.write("mic: data is absent, left out\n")
    else:
        found["mic"] = views
    for uid in ("boombox", "spot"):
        found[uid] = split_heldout(load_views(SAMPLE / uid, size=SIZE), 8)
    return found


def psnr(train: Views, test: Views, ranking: str, tau: int, seed: int, steps: int) -> float:
    """Held-out PSNR on white of one fit."""
    config = dataclasses.replace(
        from_table(FitConfig, {**load_profile("cpu")["fit"], "heldout_every": 0}),
        size=SIZE, start_size=SIZE // 2, steps=steps, bake_at=1.0, tau=tau, initial_anchors=tau // 4, ranking=ranking,
    )  # fmt: skip
    fit = fit_object(train, config, seed=seed)
    assert len(fit.gaussians) <= tau
    return float(
        np.mean(measure(fit.gaussians, make_scene(fit.prepared.placed.views(test), torch.device("cpu")), "cpu").psnr)
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for (uid, views), tau in itertools.product(objects().items(), TAUS):
        for ranking in RANKINGS:
            found = [psnr(*views, ranking, tau, seed, options.steps) for seed in SEEDS]
            rows.append(
                {"uid": uid, "tau": tau, "ranking": ranking, "psnr": mean(found), "std": stdev(found), "seeds": found}
            )
            sys.stderr.write(f"{rows[-1]}\n")
    # margins of the paper's ranking over the others, paired by object, bound and seed
    margins = {}
    for other in RANKINGS[1:]:
        paired = [
            a - b
            for ours, theirs in itertools.product(rows, rows)
            if (ours["uid"], ours["tau"]) == (theirs["uid"], theirs["tau"])
            and (ours["ranking"], theirs["ranking"]) == (RANKINGS[0], other)
            for a, b in zip(ours["seeds"], theirs["seeds"], strict=True)
        ]
        margins[other] = {"mean_db": mean(paired), "std_db": stdev(paired), "wins": sum(d > 0 for d in paired)}
        margins[other]["of"] = len(paired)
    keep("ranking", {"steps": options.steps, "background": "white", "margin_over": margins, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
