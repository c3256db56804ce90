"""`make bench-learning`: train small diffusion models of atlases on one CPU core, and compare samples with objects.

    python -m bench.learning [--part a b c d] [--many DATASET] [--work FOLDER]

a: the four samples of manifests/sample by caption; b: the same without captions; c: all objects of DATASET by
caption, with the distance of each sample to its nearest object; d: ablations of c in less time.
`python -m bench.pilot` makes DATASET of 247 meshes; the samples are fitted first if FOLDER lacks them. Progress is
kept in FOLDER: started again, parts that ended are not repeated, and a training goes on from its last mark.
docs/learning.md has the results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.learning_data import Objects, numbered, read
from bench.learning_parts import Recipe, run
from bench.objects import SAMPLE
from bench.pilot import COMMAND
from bench.record import keep
from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.losses import GroupWeights
from gaussianverse.examples.process import V
from gaussianverse.examples.representation import RepresentationConfig
from gaussianverse.examples.training import TrainingConfig

_LINEAR = RepresentationConfig(log_scale=False)
_FEW = {"widths": (64, 128, 192), "rank": 8, "output_rank": 8}
_MANY = {"widths": (32, 48, 64), "rank": 0, "output_rank": 208, "head_width": 64, "summary": 0}
_INSIDE = {"widths": (64, 96, 128), "rank": 128, "head_width": 128, "summary": 0}
A = Recipe(TrainingConfig(cpu_seconds=120, precision="float32", caption_dropout=0.0), _FEW | {"summary": 0}, _LINEAR)
B = Recipe(
    TrainingConfig(cpu_seconds=420, precision="float32", caption_dropout=1.0),
    _FEW,
    _LINEAR,
    marks=(0.15, 0.4, 0.7, 1.0),
)
# more of the high noise levels, where the input does not show the object: only there captions are learnt
_CAPTIONS = TrainingConfig(cpu_seconds=2400, batch_size=16, precision="float32", caption_dropout=0.0, time_power=0.3)
C = Recipe(_CAPTIONS, _MANY, _LINEAR, marks=(0.1, 0.2, 0.4, 0.6, 0.8, 1.0))
_ABLATED = replace(C, config=replace(C.config, cpu_seconds=480), marks=(0.1, 0.3, 0.6, 1.0))
ABLATIONS = {
    "none": _ABLATED,
    "noise levels drawn evenly": replace(_ABLATED, config=replace(_ABLATED.config, time_power=1.0)),
    "maps mixed before the last layer": replace(_ABLATED, network=_INSIDE),
    "no mixed maps": replace(_ABLATED, network=_INSIDE | {"rank": 0}),
    "logarithms of scales": replace(_ABLATED, representation=RepresentationConfig()),
    "v": replace(_ABLATED, prediction=V),
    "offsets weigh as the rest": replace(_ABLATED, config=replace(_ABLATED.config, weights=GroupWeights(offset=1.0))),
    "standardised by channel": replace(
        _ABLATED, representation=RepresentationConfig(log_scale=False, per_pixel=False)
    ),
}


def samples(folder: Path) -> str:
    """The dataset of the four sample objects, which is fitted if it is not there."""
    if not (folder / "_SUCCESS").exists():
        fit = ["fit-shard", "--manifest", str(SAMPLE / "objects.jsonl"), "--out", str(folder), "--profile", "quick"]
        subprocess.run([COMMAND, *fit], check=True)
    return str(folder)


def opened(url: str) -> tuple[AtlasDataset, Objects]:
    """A dataset for training, and its objects, with captions of their own."""
    captions = numbered(AtlasDataset(url))

    def own_caption(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "caption": captions[sample["uid"]]}

    objects = read(AtlasDataset(url, transform=own_caption))
    return AtlasDataset(url, transform=own_caption, infinite=True), objects


def result(work: Path) -> dict[str, Any]:
    """What the parts that ended have found, under the keys that others read."""
    found = {name: json.loads(path.read_text()) for name in "abc" if (path := work / f"{name}.json").exists()}
    last = {name: values["curve"][-1] for name, values in found.items()}
    keys: dict[str, Any] = {}
    if "a" in last:
        keys |= {"objects": last["a"]["samples"], "psnr_db": last["a"]["psnr_db"]}
        keys |= {"cpu_minutes": last["a"]["cpu_minutes"]}
    if "b" in last:
        keys |= {"unconditional_psnr_db": last["b"]["psnr_db"], "unconditional_cpu_minutes": last["b"]["cpu_minutes"]}
    if "c" in last:
        keys |= {"many_objects": last["c"]["samples"], "many_psnr_db": last["c"]["psnr_db"]}
        keys |= {"many_cpu_minutes": last["c"]["cpu_minutes"]}
    keys["curve"] = {name: values["curve"] for name, values in found.items()}
    keys["parameters"] = {name: values["parameters"] for name, values in found.items()}
    ablated = {name: work / f"d-{name.replace(' ', '-')}.json" for name in ABLATIONS}
    keys["ablations"] = {
        name: json.loads(path.read_text())["curve"][-1] for name, path in ablated.items() if path.exists()
    }
    return keys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--part", nargs="+", choices=["a", "b", "c", "d"], default=["a", "b", "c", "d"])
    parser.add_argument(
        "--many", default=str(temporary / "gaussianverse-pilot" / "dataset"), help="dataset of c and d"
    )
    parser.add_argument("--work", type=Path, default=temporary / "gaussianverse-learning")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for part, recipe in (("a", A), ("b", B)):
        if part in options.part:
            run(part, recipe, *opened(samples(options.work / "samples")), options.work)
    if "c" in options.part:
        run("c", C, *opened(options.many), options.work)
    if "d" in options.part:
        for name, recipe in ABLATIONS.items():
            run(f"d-{name.replace(' ', '-')}", recipe, *opened(options.many), options.work)
    keep("learning", result(options.work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
