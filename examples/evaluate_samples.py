"""Evaluate a trained model: renders of N captions, their validity, and with a CLIP model their CLIP score.

    python -m gaussianverse.examples.evaluate_samples RUN/step-100000 DATASET OUT --checkpoint SD2_FOLDER \\
        --split val --count 200 --clip CLIP_FOLDER

The captions are those of objects of DATASET. Its own atlases are measured beside the samples, as the yardstick: they
are what a perfect model would make. OUT gets `evaluation.json` and pictures of all samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaussianverse.atlas import AtlasDataset
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.evaluation import ClipScore, clip_score, validity
from gaussianverse.examples.pictures import write_pictures
from gaussianverse.examples.sample_atlas import add_sampling
from gaussianverse.examples.trained import load_trained
from gaussianverse.examples.views import orbit, render_atlas

EVALUATION = "evaluation.json"


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("trained", type=Path, help="a step-* folder of train_atlas")
    made.add_argument("dataset", help="folder or s3://bucket/prefix that it was trained on")
    made.add_argument("out", type=Path)
    made.add_argument("--checkpoint", type=Path, help="the diffusers pipeline that train_atlas was given, if any")
    made.add_argument("--split", default="all", help="objects whose captions are sampled (default: all)")
    made.add_argument("--count", type=int, default=100, help="captions, spread evenly over the split")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--clip", type=Path, help="folder of a CLIP model, for the CLIP score")
    made.add_argument("--views", type=int, default=4, help="renders of each sample")
    made.add_argument("--view-size", type=int, default=256, help="side of a render in pixels")
    add_sampling(made)
    return made


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Sample, measure and write; returns what `evaluation.json` holds."""
    counts = {name: getattr(args, name) for name in ("count", "views", "view_size", "at_once")}
    if min(counts.values()) < 1:
        raise TrainingError(f"{counts}: expected at least 1 of each")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = AtlasDataset(args.dataset, split=args.split, filters=[("caption", "!=", "")], rank=0, world=1)
    model = load_trained(args.trained, args.checkpoint, device)
    model.representation.check(dataset)
    score = None if args.clip is None else clip_score(args.clip, device)
    places = dataset.samples.places
    if not len(places):
        raise TrainingError(f"{args.dataset}: no object of split {args.split!r} has a caption: pass another --split")
    chosen = places[np.unique(np.linspace(0, len(places) - 1, min(args.count, len(places))).astype(int))]
    uids = dataset.catalogue.uids(chosen)
    rows: list[dict[str, Any]] = []
    captions = [str(dataset.get(uid)["caption"]) for uid in uids]
    for start in range(0, len(uids), args.at_once):
        part = slice(start, start + args.at_once)
        seeds = range(args.seed + start, args.seed + start + len(uids[part]))
        atlases = model.sample(
            captions[part], seeds, steps=args.steps, guidance=args.guidance, solver=args.solver, at_once=args.at_once
        )
        for uid, caption, seed, atlas in zip(uids[part], captions[part], seeds, atlases, strict=True):
            write_pictures(args.out / "samples", uid, atlas, model.representation.points, args.view_size)
            true = dataset.get(uid)["atlas"].float()
            row = {"uid": uid, "caption": caption, "seed": seed}
            rows.append({**row, "sample": _measured(atlas.cpu(), caption, model, score, args),
                         "atlas": _measured(true, caption, model, score, args)})  # fmt: skip
    means = {
        kind: {name: float(np.mean([row[kind][name] for row in rows])) for name in rows[0][kind]}
        for kind in ("sample", "atlas")
    }
    found = {"samples": len(rows), "mean": means, "rows": rows}
    (args.out / EVALUATION).write_text(json.dumps(found, indent=1))
    return found


def _measured(
    atlas: torch.Tensor, caption: str, model: Any, score: ClipScore | None, args: argparse.Namespace
) -> dict[str, float]:
    """Validity, and CLIP score where there is a model."""
    points = model.representation.points.cpu()
    found = validity(atlas, points)
    if score is not None:
        views = render_atlas(atlas.nan_to_num(), points, orbit(args.views, args.view_size))
        found["clip_score"] = score([views], [caption])[0]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parser().parse_args(arguments)
    try:
        found = run(args)
    except (TrainingError, DatasetError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"samples": found["samples"], **found["mean"]}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
