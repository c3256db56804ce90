"""Train a diffusion model of atlases: fine-tune Stable Diffusion 2 as the paper does (section 5), or a small network.

    python -m gaussianverse.examples.train_atlas DATASET OUT --checkpoint SD2_FOLDER --steps 100000 --batch-size 16
    python -m gaussianverse.examples.train_atlas DATASET OUT --small --steps 2000        # on a CPU, no downloads
    accelerate launch --num-processes 8 -m gaussianverse.examples.train_atlas ...        # on many GPUs
    python -m gaussianverse.examples.train_atlas ... --resume latest                     # after a kill

DATASET is a folder or s3://bucket/prefix. OUT gets `metrics.jsonl`, `tensorboard/`, `samples/step-000500/` and
checkpoints `step-000500/`, which `sample_atlas` and `evaluate_samples` read. docs/training.md describes them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from argparse import BooleanOptionalAction
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gaussianverse.atlas import AtlasDataset
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.examples.captions import encoder_digest
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.losses import GroupWeights
from gaussianverse.examples.networks import load_network, small_network, widened
from gaussianverse.examples.photometric import RENDERS, VIEWS, PhotometricConfig
from gaussianverse.examples.process import EPSILON, PREDICTIONS, SAMPLE, checkpoint_process, make_process
from gaussianverse.examples.representation import Representation, RepresentationConfig
from gaussianverse.examples.sampling import DDIM, DPM, SOLVERS
from gaussianverse.examples.trained import CLIP, WORDS, embedding
from gaussianverse.examples.training import PRECISIONS, Trainer, TrainingConfig, processes
from gaussianverse.examples.training_run import Run, RunConfig

WORD_WIDTH, WORDS_READ = 64, 24
SMALL: dict[str, Any] = {
    "learning_rate": 2e-3, "ema": 0.998, "warmup": 100, "weight_decay": 0.0, "caption_dropout": 0.1,
}  # fmt: skip
"""Defaults for a small network that starts at random."""
FINE_TUNED: dict[str, Any] = {
    "learning_rate": 5e-5, "ema": 0.9999, "warmup": 500, "weight_decay": 0.01, "caption_dropout": 0.2,
}  # fmt: skip
"""Defaults for a checkpoint that was trained on images."""
log = logging.getLogger("train_atlas")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("dataset", help="folder or s3://bucket/prefix")
    add("out", type=Path)
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="diffusers pipeline, such as SD 2's: unet/, scheduler/, ..")
    source.add_argument("--small", action="store_true", help="a small network, captions embedded by their words")
    add("--resume", metavar="latest|FOLDER", help="the newest whole step-* folder of OUT, or this one")
    add("--split", default="all", help="objects to learn (default: all)")
    add("--validation-split", help="objects to validate with (default: as --split)")
    add("--min-psnr", type=float, help="leave out objects whose fit has a lower PSNR")
    add("--captioned", action="store_true", help="leave out objects without a caption")
    add("--seed", type=int, default=0)

    group = made.add_argument_group("optimisation")
    add = group.add_argument
    add("--steps", type=int, default=100_000)
    add("--batch-size", type=int, default=4, help="of a forward pass, on each rank (default: 4)")
    add("--accumulate", type=int, default=1, help="forward passes of a step")
    add("--workers", type=int, default=0, help="processes that read, on each rank")
    for name in SMALL:
        kind = int if name == "warmup" else float
        add(
            f"--{name.replace('_', '-')}", type=kind,
            help=f"default: {SMALL[name]} with --small, {FINE_TUNED[name]} with --checkpoint",
        )  # fmt: skip
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 on GPUs, float32 on CPUs")
    add("--gradient-checkpointing", action="store_true", help="less memory, a third more time")

    group = made.add_argument_group("what is learnt")
    add = group.add_argument
    add("--prediction", choices=PREDICTIONS, help="default: the checkpoint's; with --small sample, which is x0")
    add("--convert", action="store_true", help="train the checkpoint to predict --prediction instead of its own")
    add(
        "--zero-snr",
        action=BooleanOptionalAction,
        help="no signal at the last noise level (default: not for epsilon)",
    )
    add("--sphere-points", action=BooleanOptionalAction, default=True, help="sphere points as further inputs")
    add("--log-scale", action=BooleanOptionalAction, default=True, help="learn the logarithm of scales")
    add("--floor", type=float, default=0.5, help="least deviation of a pixel, relative to its channel's mean")
    for name, weight in asdict(GroupWeights()).items():
        add(f"--weight-{name}", type=float, default=weight, help=f"of these channels' loss (default: {weight:g})")
    add("--photometric", type=float, default=0.0, help="weight of the term of renders; 0 = none")
    add("--photometric-references", choices=(VIEWS, RENDERS), default=VIEWS, help="views of the dataset, or renders")
    add("--photometric-views", type=int, default=4, help="of an object in a step")
    add("--photometric-objects", type=int, default=2, help="of a batch")
    add("--view-size", type=int, default=128, help="side of renders as references, in pixels")
    add("--lpips-weights", type=Path, help="VGG's backbone weights, for an LPIPS term")

    group = made.add_argument_group("what is written, in steps; 0 = never")
    add = group.add_argument
    add("--log-every", type=int, default=50)
    add("--save-every", type=int, default=5_000)
    add("--validate-every", type=int, default=5_000)
    add("--sample-every", type=int, default=5_000)
    add("--keep", type=int, default=0, help="newest checkpoints to keep; 0 = all")
    add("--validation-objects", type=int, default=4)
    add("--sample-steps", type=int, default=25)
    add("--guidance", type=float, default=1.0, help="of the samples")
    add("--solver", choices=SOLVERS, help=f"of the samples (default: {DDIM} with --small, {DPM} with --checkpoint)")
    return made


def training_config(args: argparse.Namespace) -> TrainingConfig:
    """The training that the command line asks for."""
    defaults = SMALL if args.small else FINE_TUNED
    chosen = {
        name: default if (given := getattr(args, name)) is None else given for name, default in defaults.items()
    }
    weights = GroupWeights(**{name: getattr(args, f"weight_{name}") for name in asdict(GroupWeights())})
    photometric = PhotometricConfig(
        args.photometric, args.photometric_references, args.photometric_views, args.photometric_objects,
        args.view_size, args.lpips_weights,
    )  # fmt: skip
    return TrainingConfig(
        steps=args.steps, batch_size=args.batch_size, accumulate=args.accumulate, workers=args.workers,
        precision=args.precision, gradient_checkpointing=args.gradient_checkpointing, weights=weights,
        photometric=photometric, seed=args.seed, **chosen,
    )  # fmt: skip


def settings_of(config: TrainingConfig, representation: RepresentationConfig, **others: Any) -> dict[str, Any]:
    """What a resumed training must have in common with this one: all that has an influence on what is learnt."""
    training = asdict(config)
    del training["workers"], training["gradient_checkpointing"]
    training["photometric"]["lpips_weights"] = config.photometric.lpips_weights is not None
    return {"training": training, "representation": asdict(representation), **others}


def make_run(args: argparse.Namespace) -> Run:
    """Open the dataset, make or load the network, and resume if asked."""
    config, seen = (
        training_config(args),
        RepresentationConfig(floor=args.floor, log_scale=args.log_scale, sphere_points=args.sphere_points),
    )
    # a dataset divides its samples over the ranks that there are when it is made
    device = processes().device
    filters: list[tuple[str, str, Any]] = [] if args.min_psnr is None else [("psnr", ">=", args.min_psnr)]
    filters += [("caption", "!=", "")] if args.captioned else []
    dataset = AtlasDataset(
        args.dataset, filters=filters, split=args.split, seed=args.seed, infinite=True,
        views=_views(args.dataset, config.photometric),
    )  # fmt: skip
    validation = AtlasDataset(
        args.dataset, filters=filters, split=args.validation_split or args.split, rank=0, world=1
    )
    representation = Representation.of(dataset, seen)
    torch.manual_seed(config.seed)
    if args.small:
        if args.convert:
            raise TrainingError("--convert is for checkpoints: with --small leave it out, --prediction says all")
        prediction = args.prediction or SAMPLE
        process = make_process(prediction, zero_snr=prediction != EPSILON if args.zero_snr is None else args.zero_snr)
        network = small_network(representation.size, representation.channels_in, WORD_WIDTH, WORDS_READ)
        captions: dict[str, Any] = {"kind": WORDS, "width": WORD_WIDTH, "tokens": WORDS_READ}
    else:
        process = checkpoint_process(args.checkpoint, args.prediction, zero_snr=args.zero_snr, convert=args.convert)
        network = widened(load_network(args.checkpoint), representation.channels_in)
        captions = {"kind": CLIP, "digest": encoder_digest(args.checkpoint)}
    embed = embedding(captions, args.checkpoint, device)
    trainer = Trainer(config, dataset, representation, network, embed, process)
    settings = settings_of(
        config, seen, captions=captions, statistics=representation.digest,
        process={"prediction": process.prediction, "zero_snr": bool(process.scheduler.config.rescale_betas_zero_snr)},
    )  # fmt: skip
    run = Run(
        trainer,
        RunConfig(
            args.out, args.log_every, args.save_every, args.validate_every, args.sample_every,
            args.validation_objects, args.sample_steps, args.guidance,
            args.solver or (DDIM if args.small else DPM), args.keep,
        ),
        settings, validation,
    )  # fmt: skip
    if args.resume:
        run.resume(args.resume)
    elif any(args.out.glob("step-*")):
        raise TrainingError(f"{args.out} has checkpoints: pass --resume latest to go on, or another folder")
    return run


def _views(url: str, photometric: PhotometricConfig) -> int | bool:
    """`views=` for the dataset; TrainingError if it has not so many."""
    if photometric.views_read:
        photometric.check_count(AtlasDataset(url, rank=0, world=1))
    return photometric.views_read


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        make_run(args).train()
    except (TrainingError, DatasetError, StoreError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
