"""Sample an atlas from a caption and write its Gaussians as a PLY.

    python -m gaussianverse.examples.sample_atlas DATASET OUT/step-100000 chair.ply \\
        --checkpoint SD2_FOLDER --caption "a chair"
    python -m gaussianverse.examples.sample_atlas out /tmp/tiny/step-000020 x.ply \\
        --tiny-random --caption "a cow"                              # on a CPU

Of the dataset, only the mean and standard deviation for standardisation are read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussianverse.atlas import AtlasDataset, Gaussians, unpack_tensor
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.examples.diffusion import (
    Embed,
    byte_embeddings,
    clip_embeddings,
    load_unet,
    noise_schedule,
    solver,
)

GUIDANCE = 3.5
# fainter Gaussians are padding, for which a network does not predict exactly 0
MIN_OPACITY = 1 / 255


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", help="folder or s3://bucket/prefix")
    made.add_argument("trained", type=Path, help="a step-* folder of train_atlas")
    made.add_argument("ply", type=Path)
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="diffusers folder with text_encoder/ and tokenizer/")
    source.add_argument("--tiny-random", action="store_true", help="if train_atlas was called with it")
    made.add_argument("--caption", required=True)
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--guidance", type=float, default=GUIDANCE)
    made.add_argument("--seed", type=int, default=0)
    return made


@torch.no_grad()
def sample(unet: Any, embed: Embed, caption: str, size: int, *, steps: int, guidance: float, seed: int) -> Tensor:
    """Sample a standardised atlas, [16, size, size], by DPM-Solver++ with classifier-free guidance."""
    device = next(unet.parameters()).device
    schedule = solver(noise_schedule(), steps)
    captions = embed([caption])
    both = torch.cat([captions, torch.zeros_like(captions)])
    noise = torch.randn(1, unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
    state: Tensor = noise.to(device) * schedule.init_noise_sigma
    for time in schedule.timesteps:
        with_caption, without = unet(torch.cat([state, state]), time, both).sample.chunk(2)
        state = schedule.step(without + guidance * (with_caption - without), time, state).prev_sample
    return state[0]


def gaussians_of(atlas: Tensor) -> Gaussians:
    """Visible Gaussians of a generated atlas, [16, size, size], not standardised.

    Raises:
        ValueError: there are none.
    """
    found = unpack_tensor(atlas.cpu().float(), clamp=True)
    visible = found.opacities >= MIN_OPACITY
    if not bool(visible.any()):
        raise ValueError("no Gaussian of the sample is visible; train longer")
    values = {n: getattr(found, n)[visible].numpy() for n in ("means", "scales", "opacities", "colors")}
    return Gaussians(quats=canonical_quats(found.quats[visible].numpy()), **values)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = AtlasDataset(args.dataset)
    unet = load_unet(args.trained).to(device).eval()
    embed = byte_embeddings(device) if args.tiny_random else clip_embeddings(args.checkpoint, device)
    made = sample(
        unet, embed, args.caption, dataset.catalogue.size, steps=args.steps, guidance=args.guidance, seed=args.seed
    )
    gaussians = gaussians_of(dataset.standard().to(device).inverse(made))
    args.ply.write_bytes(write_ply(gaussians))
    sys.stdout.write(f"{args.ply}: {len(gaussians)} Gaussians\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
