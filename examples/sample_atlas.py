"""Sample atlases from captions: of each a PLY of its Gaussians, a sheet of its channels and renders of four sides.

    python -m gaussianverse.examples.sample_atlas RUN/step-100000 OUT --checkpoint SD2_FOLDER --caption "a chair"
    python -m gaussianverse.examples.sample_atlas RUN/step-002000 OUT --captions lines.txt --seeds 0 1 2 3
    python -m gaussianverse.examples.sample_atlas RUN/step-002000 OUT --unconditional --seeds 0 1 2 3

The folder that was trained has all that is needed but a text encoder. OUT gets `0000-seed0.ply`, `.png`,
`-views.png` and so on, and `samples.jsonl`, a line for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.evaluation import validity
from gaussianverse.examples.pictures import gaussians_of, write_pictures
from gaussianverse.examples.sampling import DPM, SOLVERS
from gaussianverse.examples.trained import load_trained

GUIDANCE = 3.5
SAMPLES = "samples.jsonl"


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("trained", type=Path, help="a step-* folder of train_atlas")
    made.add_argument("out", type=Path)
    made.add_argument("--checkpoint", type=Path, help="the diffusers pipeline that train_atlas was given, if any")
    asked = made.add_mutually_exclusive_group(required=True)
    asked.add_argument("--caption", action="append", help="may be repeated")
    asked.add_argument("--captions", type=Path, help="text file, a caption a line")
    asked.add_argument("--unconditional", action="store_true", help="no captions")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], help="of each caption (default: 0)")
    add_sampling(made)
    return made


def add_sampling(made: argparse.ArgumentParser) -> None:
    """Add the options of sampling."""
    made.add_argument("--solver", choices=SOLVERS, default=DPM)
    made.add_argument("--steps", type=int, default=25)
    made.add_argument("--guidance", type=float, default=GUIDANCE, help=f"1 = none (default: {GUIDANCE})")
    made.add_argument("--at-once", type=int, default=16, help="samples of a forward pass")


def captions_of(args: argparse.Namespace) -> list[str]:
    """The captions that are asked for.

    Raises:
        TrainingError: there are none, or one is empty.
    """
    if args.unconditional:
        return [""]
    given: Sequence[str] = args.caption or args.captions.read_text().splitlines()
    captions = [caption.strip() for caption in given]
    if not captions or not all(captions):
        raise TrainingError(
            f"{sum(not caption for caption in captions)} of {len(captions)} captions are empty: leave them out, or "
            "pass --unconditional to sample without captions"
        )
    return captions


def run(args: argparse.Namespace) -> int:
    """Sample and write; returns the number of samples without a visible Gaussian."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    captions = captions_of(args)
    if args.at_once < 1:
        raise TrainingError(f"--at-once {args.at_once}: expected at least 1")
    model = load_trained(args.trained, args.checkpoint, device)
    jobs = [(number, caption, seed) for number, caption in enumerate(captions) for seed in args.seeds]
    args.out.mkdir(parents=True, exist_ok=True)
    points, invisible = model.representation.points, 0
    with (args.out / SAMPLES).open("w") as file:
        for start in range(0, len(jobs), args.at_once):
            part = jobs[start : start + args.at_once]
            atlases = model.sample(
                [caption for _, caption, _ in part], [seed for _, _, seed in part], steps=args.steps,
                guidance=args.guidance, solver=args.solver, at_once=args.at_once,
            )  # fmt: skip
            for (number, caption, seed), atlas in zip(part, atlases, strict=True):
                name = f"{number:04d}-seed{seed}"
                write_pictures(args.out, name, atlas, points)
                count = len(gaussians_of(atlas, points))
                invisible += count == 0
                line = {"name": name, "caption": caption, "seed": seed, "gaussians": count}
                file.write(json.dumps({**line, **validity(atlas, points)}) + "\n")
                sys.stdout.write(f"{args.out / name}: {count} Gaussians, {caption or 'no caption'}\n")
    return invisible


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parser().parse_args(arguments)
    try:
        invisible = run(args)
    except (TrainingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if invisible:
        sys.stderr.write(f"{invisible} samples have no visible Gaussian and no PLY; train longer\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
