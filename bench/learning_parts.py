"""Trainings of `bench.learning`: recipes, progress that outlives the process, and what samples are compared with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.learning_data import CAMERAS, Objects
from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.captions import hashed_words
from gaussianverse.examples.process import SAMPLE, make_process
from gaussianverse.examples.representation import Representation, RepresentationConfig
from gaussianverse.examples.small_unet import SmallUNet
from gaussianverse.examples.training import Trainer, TrainingConfig
from gaussianverse.examples.validation import reconstruction
from gaussianverse.examples.views import render_atlas

TIMES = (20, 250, 500, 750, 900, 999)
_CHUNK = 8
_WIDTH, _TOKENS = 64, 24


@dataclass(frozen=True)
class Recipe:
    """A training of a small network.

    Attributes:
        config: of the trainer.
        network: arguments of `SmallUNet` that differ from its defaults.
        representation: what the network sees.
        prediction: what it predicts.
        marks: shares of the training after which samples are drawn.
    """

    config: TrainingConfig
    network: Mapping[str, Any] = field(default_factory=dict)
    representation: RepresentationConfig = field(default_factory=RepresentationConfig)
    prediction: str = SAMPLE
    marks: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)

    @property
    def unconditional(self) -> bool:
        """Whether it learns without captions."""
        return self.config.caption_dropout == 1


def make_trainer(recipe: Recipe, dataset: AtlasDataset, representation: Representation | None = None) -> Trainer:
    """A trainer at step 0, on weights that its seed gives; the representation is the recipe's unless one is given."""
    representation = representation or Representation.of(dataset, recipe.representation)
    torch.manual_seed(recipe.config.seed)
    network = SmallUNet(
        sample_size=representation.size, in_channels=representation.channels_in, cross_attention_dim=_WIDTH,
        tokens=_TOKENS, **recipe.network,
    )  # fmt: skip
    process = make_process(recipe.prediction)
    return Trainer(recipe.config, dataset, representation, network, hashed_words(_WIDTH, _TOKENS), process)


def run(name: str, recipe: Recipe, dataset: AtlasDataset, objects: Objects, work: Path) -> dict[str, Any]:
    """Train to the end, from where an earlier process left it; returns the curve and the last evaluation.

    Args:
        name: of the training, and of its files in `work`.
        recipe: with `config.cpu_seconds`.
        dataset: what is learnt; `infinite`, with the captions of `objects`.
        objects: all its objects.
        work: folder of state, curve and pictures.
    """
    state, progress = work / f"{name}.pt", work / f"{name}.json"
    trainer = make_trainer(recipe, dataset)
    found: dict[str, Any] = {"curve": []}
    if progress.exists():
        found = json.loads(progress.read_text())
        trainer.load_state_dict(torch.load(state, weights_only=True))
    horizon = recipe.config.cpu_seconds or 0.0
    for mark in recipe.marks[len(found["curve"]) :]:
        trainer.train(until_cpu_seconds=mark * horizon)
        row, sheet = evaluate(trainer, objects, final=mark == recipe.marks[-1])
        found["curve"].append(row)
        Image.fromarray(sheet.numpy()).save(work / f"{name}.png")
        found["parameters"] = sum(p.numel() for p in trainer.network.parameters())
        _replace(state, lambda path: torch.save(trainer.state_dict(), path))
        _replace(progress, lambda path: path.write_text(json.dumps(found)))
        sys.stderr.write(f"{name}: {json.dumps(row)}\n")
    return found


def evaluate(trainer: Trainer, objects: Objects, *, final: bool) -> tuple[dict[str, Any], Tensor]:
    """PSNR of samples and of x0 in one step, and a sheet; with `final` of all objects, else of at most 16."""
    count = len(objects.uids)
    chosen = list(range(count)) if final or count <= 16 else [k * count // 16 for k in range(16)]
    truth = {k: render_atlas(objects.atlases[k], objects.points, CAMERAS) for k in range(count)}
    unconditional = trainer.config.caption_dropout == 1
    captions = [""] * max(8, count) if unconditional else [objects.captions[k] for k in chosen]
    renders = []
    for first in range(0, len(captions), _CHUNK):
        made = trainer.sample(captions[first : first + _CHUNK], seed=1 + first)
        renders += [render_atlas(atlas, objects.points, CAMERAS) for atlas in made]
    distances = _psnr_matrix(torch.stack(renders), torch.stack([truth[k] for k in range(count)]))
    nearest = distances.argmax(1)
    best = distances.max(1).values
    own = best if unconditional else distances[range(len(renders)), chosen]
    row: dict[str, Any] = {
        "cpu_minutes": round(trainer.cpu_seconds / 60, 2), "steps": trainer.step, "samples": len(renders),
        "loss": trainer.take_losses()["diffusion"], "psnr_db": round(float(own.mean()), 2),
        "lowest_db": round(float(own.min()), 2), "nearest_db": round(float(best.mean()), 2),
        "each_db": [round(float(v), 1) for v in own],
    }  # fmt: skip
    if unconditional:
        row["which"] = [objects.uids[int(k)] for k in nearest]
    else:
        row["nearest_is_own"] = round(float((nearest == torch.tensor(chosen)).float().mean()), 3)
    others = distances.clone()
    others[range(len(renders)), nearest] = -torch.inf
    row["second_nearest_db"] = round(float(others.max(1).values.mean()), 2)
    some = chosen[:: max(1, len(chosen) // 8)][:8]
    atlases = torch.stack([objects.atlases[k] for k in some])
    embedded = trainer.embed([""] * len(some) if unconditional else [objects.captions[k] for k in some])
    with trainer.averaged_weights():
        x0 = reconstruction(
            trainer.predict, trainer.process, trainer.representation, atlases, embedded, times=TIMES, cameras=CAMERAS
        )
    row["x0_db"] = {str(time): round(values["psnr"], 2) for time, values in x0.items()}
    row["offset_world"] = round(x0[TIMES[3]]["offset_world"], 5)
    shown = range(0, len(renders), max(1, len(renders) // 12))
    pairs = [(truth[int(nearest[k]) if unconditional else chosen[k]], renders[k]) for k in shown][:12]
    return row, sheet(pairs)


def sheet(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Picture of pairs of renders, atlas | sample from two sides, three pairs a row, uint8 [H, W, 3]."""
    tiles = [torch.cat([atlas[0], made[0], atlas[3], made[3]], dim=1) for atlas, made in pairs]
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % 2)
    rows = [torch.cat(tiles[k : k + 2], dim=1) for k in range(0, len(tiles), 2)]
    return (255 * torch.cat(rows)).round().to(torch.uint8)


def _psnr_matrix(made: Tensor, truth: Tensor) -> Tensor:
    """Mean PSNR over views of each of [M, V, ..] against each of [N, V, ..], [M, N]."""
    rows = []
    for one in made:
        errors = (truth - one).square().flatten(2).mean(2)
        rows.append((-10 * torch.log10(errors + 1e-12)).mean(1))
    return torch.stack(rows)


def _replace(path: Path, write: Any) -> None:
    """Write a file beside its place and move it there."""
    temporary = path.with_suffix(".new")
    write(temporary)
    os.replace(temporary, path)
