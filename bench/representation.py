"""`python -m bench.representation DATASET`: the same small training of the same objects in other representations.

The fits of DATASET (`python -m bench.pilot` makes it) are packed again: with the ring layout, other paddings, 192 x
192 cells, quaternions as the nearest of 24 equivalents; `--fixed` names a dataset of the same objects by profile
`fixed`. Every training has equal steps; seeds are paired. Judged by renders against those of the object's own atlas:
x0 in one step from true atlases with noise, of objects that are learnt and of others, and samples by caption.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.equivalents import nearest
from bench.learning_data import CAMERAS, Objects, interval, numbered
from bench.learning_parts import Recipe, make_trainer
from bench.record import keep
from gaussianverse.atlas import AtlasConfig, AtlasDataset, Gaussians, pack
from gaussianverse.atlas.plane import points_of
from gaussianverse.examples.representation import Representation, RepresentationConfig, statistics_digest
from gaussianverse.examples.training import Trainer, TrainingConfig
from gaussianverse.examples.validation import reconstruction
from gaussianverse.examples.views import psnr, render_atlas

LEARNT_TIMES, OTHER_TIMES = (250, 750, 999), (20, 100, 250)
_SHOWN = 12
_CONFIG = TrainingConfig(steps=240, precision="float32", caption_dropout=0.0, time_power=0.3)
RECIPE = Recipe(_CONFIG, {"widths": (48, 64, 96), "rank": 48, "head_width": 128, "summary": 0})


@dataclass(frozen=True)
class Variant:
    """A representation: the atlas's configuration, a change of the Gaussians, and whether the count is fixed."""

    config: AtlasConfig = field(default_factory=AtlasConfig)
    change: Callable[[Gaussians], Gaussians] | None = None
    fixed: bool = False


VARIANTS = {
    "default": Variant(),
    "ring": Variant(AtlasConfig(layout="ring")),
    "pad nearest": Variant(AtlasConfig(pad="nearest")),
    "pad before": Variant(AtlasConfig(pad="before")),
    "nearest of 24": Variant(change=nearest),
    "192 cells": Variant(AtlasConfig(size=192)),
    "fixed counts": Variant(fixed=True),
}


def fits(url: str, uids: list[str]) -> dict[str, Gaussians]:
    """The fits of some objects of a dataset."""
    dataset = AtlasDataset(url).with_family("splats", decode={"npz": Gaussians.from_bytes})
    return {uid: dataset.get(uid)["splats"]["splat.npz"] for uid in uids}


def packed(found: dict[str, Gaussians], variant: Variant) -> dict[str, torch.Tensor]:
    """Atlases [16, S, S] of fits."""
    change = variant.change or (lambda gaussians: gaussians)
    arrays = {uid: pack(change(gaussians), variant.config).array for uid, gaussians in found.items()}
    return {uid: torch.from_numpy(np.ascontiguousarray(a)).permute(2, 0, 1) for uid, a in arrays.items()}


def kept(path: Path, url: str, uids: list[str], variant: Variant) -> dict[str, torch.Tensor]:
    """The packed atlases in a file, made if it is not there."""
    if not path.exists():
        torch.save(packed(fits(url, uids), variant), path)
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return found


def seen(
    config: RepresentationConfig, learnt: list[torch.Tensor], points: torch.Tensor, digest: str
) -> Representation:
    """The trainer's representation, of the statistics of the atlases that are learnt."""
    blank = torch.zeros_like(learnt[0])
    logarithms = Representation(config, blank, torch.ones_like(blank), points, digest)
    values = torch.stack([logarithms(atlas) for atlas in learnt])
    deviation = values.std(0, correction=0)
    deviation = torch.maximum(deviation, config.floor * deviation.mean((1, 2), keepdim=True))
    return Representation(config, values.mean(0), deviation, points, digest)


def train(
    url: str, variant: Variant, atlases: dict[str, torch.Tensor], learnt: list[str], captions: dict[str, str],
    config: TrainingConfig,
) -> Trainer:  # fmt: skip
    """Train on the atlases in place of those of the dataset."""

    def replaced(sample: dict[str, Any]) -> dict[str, Any]:
        uid = sample["uid"]
        return {"uid": uid, "atlas": atlases[uid], "caption": captions[uid], "row": {}}

    dataset = AtlasDataset(url, filters=[("uid", "in", learnt)], transform=replaced, infinite=True, seed=config.seed)
    size = variant.config.size
    points = torch.from_numpy(points_of(variant.config)).float().reshape(size, size, 3)
    representation = seen(RECIPE.representation, [atlases[u] for u in learnt], points, statistics_digest(dataset))
    trainer = make_trainer(replace(RECIPE, config=config), dataset, representation)
    trainer.train()
    return trainer


def measured(trainer: Trainer, objects: Objects, learnt: int) -> dict[str, float]:
    """Scores of a training; the first `learnt` objects are those that it saw."""
    result: dict[str, float] = {}
    shown = np.linspace(0, learnt - 1, min(_SHOWN, learnt)).round().astype(int).tolist()
    for name, rows, times in (
        ("x0 learnt", shown, LEARNT_TIMES),
        ("x0 others", range(learnt, len(objects.uids)), OTHER_TIMES),
    ):
        atlases = torch.stack([objects.atlases[k] for k in rows])
        embedded = trainer.embed([objects.captions[k] for k in rows])
        with trainer.averaged_weights():
            found = reconstruction(
                trainer.predict, trainer.process, trainer.representation, atlases, embedded, times=times,
                cameras=CAMERAS,
            )  # fmt: skip
        result |= {f"{name} t={time}": values["psnr"] for time, values in found.items()}
    made = [trainer.sample([objects.captions[k]], seed=1 + k)[0] for k in shown]
    scores = [
        psnr(render_atlas(a, objects.points, CAMERAS), render_atlas(objects.atlases[k], objects.points, CAMERAS))
        for k, a in zip(shown, made, strict=True)
    ]
    return result | {"samples": float(np.mean(scores)), "cpu_seconds": trainer.cpu_seconds}


def table(runs: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Mean and half of the 95 % interval over seeds, of scores and of their differences from the default's."""
    result: dict[str, dict[str, list[float]]] = {}
    for name, by_seed in runs.items():
        result[name] = {}
        for key in next(iter(by_seed.values())):
            result[name][key] = [round(v, 2) for v in interval([scores[key] for scores in by_seed.values()])]
            paired = [s for s in by_seed if name != "default" and s in runs.get("default", {})]
            if paired:
                gains = [by_seed[s][key] - runs["default"][s][key] for s in paired]
                result[name][f"{key}: gain"] = [round(v, 2) for v in interval(gains)]
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder of a dataset, such as bench.pilot's")
    parser.add_argument("--fixed", help="dataset of the same objects with fixed counts")
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--others", type=int, default=8, help="objects that are not learnt")
    parser.add_argument("--steps", type=int, default=RECIPE.config.steps)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    default = Path(tempfile.gettempdir()) / "gaussianverse-representation"
    parser.add_argument(
        "--work", type=Path, default=default, help="atlases and scores are kept here, and not made again"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    progress = options.work / "runs.json"
    runs: dict[str, dict[str, dict[str, float]]] = json.loads(progress.read_text()) if progress.exists() else {}
    captions = numbered(AtlasDataset(options.dataset))
    uids = sorted(captions)
    uids = [uids[k] for k in np.linspace(0, len(uids) - 1, options.objects + options.others).round().astype(int)]
    np.random.default_rng(0).shuffle(uids)
    learnt = uids[: options.objects]
    made = {
        name: kept(options.work / f"{name.replace(' ', '-')}.pt", url, uids, VARIANTS[name])
        for name in options.variants
        if (url := options.fixed if VARIANTS[name].fixed else options.dataset)
    }
    # seeds outside, so that every variant has as many when the time ends
    for seed in range(options.seeds):
        for name, atlases in made.items():
            variant = VARIANTS[name]
            if str(seed) in runs.get(name, {}):
                continue
            config = replace(RECIPE.config, steps=options.steps, seed=seed)
            trainer = train(options.dataset, variant, atlases, learnt, captions, config)
            objects = Objects(
                uids, [captions[u] for u in uids], [atlases[u] for u in uids], trainer.representation.points
            )
            runs.setdefault(name, {})[str(seed)] = measured(trainer, objects, len(learnt))
            progress.write_text(json.dumps(runs))
            sys.stderr.write(f"{name}, seed {seed}: {runs[name][str(seed)]}\n")
    keep(
        "representation",
        {
            "objects": len(learnt), "others": options.others, "steps": options.steps, "seeds": options.seeds,
            "table": table(runs), "runs": runs,
        },
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
