"""Fine-tune a latent-diffusion UNet on atlases, as the paper does (section 5).

    python -m examples.train_atlas DATASET OUT --checkpoint SD2_FOLDER --steps 100000 --batch-size 16
    python -m examples.train_atlas out /tmp/tiny --tiny-random --steps 20        # on a CPU, nothing downloaded
    torchrun --nproc-per-node 8 -m examples.train_atlas ...                      # on many GPUs

DATASET is a folder or s3://bucket/prefix. OUT gets `metrics.jsonl` and, every `--save-every` steps,
`step-000500/` with the averaged UNet (what `sample_atlas` reads) and all that `--resume` needs: weights, optimiser,
and where the data stand, exact to the sample, also for another number of GPUs and workers.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from atlas import AtlasDataset, AtlasLoader, Standard, unpack_tensor
from atlas.loader import AtlasBatch
from examples.diffusion import (
    Embed,
    byte_embeddings,
    clip_embeddings,
    load_unet,
    noise_schedule,
    tiny_unet,
    widened,
)
from fitter.lpips import load_lpips
from fitter.rasterize import rasterization

L1_WEIGHT, MASK_WEIGHT, LPIPS_WEIGHT = 10.0, 1.0, 1.0
CAMERA_DISTANCE, FIELD_OF_VIEW = 1.6, 0.69
log = logging.getLogger("train_atlas")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", help="folder or s3://bucket/prefix")
    made.add_argument("out", type=Path)
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="diffusers folder with unet/ and text_encoder/")
    source.add_argument(
        "--tiny-random", action="store_true", help="a small random UNet, captions by their bytes"
    )
    made.add_argument("--resume", type=Path, help="a step-* folder of an earlier run")
    made.add_argument("--steps", type=int, default=100_000)
    made.add_argument("--batch-size", type=int, default=4, help="on each GPU")
    made.add_argument("--workers", type=int, default=0, help="processes that read, for each GPU")
    made.add_argument("--min-psnr", type=float, help="leave out objects that were fitted worse")
    made.add_argument("--learning-rate", type=float, default=5e-5)
    made.add_argument("--ema", type=float, default=0.9999, help="decay of the averaged weights")
    made.add_argument("--caption-dropout", type=float, default=0.2)
    made.add_argument("--photometric", type=float, default=0.0, help="weight of one rendered view a step")
    made.add_argument("--view-size", type=int, default=256, help="pixels of that view's side")
    made.add_argument("--lpips-weights", type=Path, help="VGG's backbone weights; without them no LPIPS term")
    made.add_argument("--save-every", type=int, default=5_000)
    made.add_argument("--seed", type=int, default=0)
    return made


def batches(loader: AtlasLoader) -> Iterator[AtlasBatch]:
    """Epoch after epoch, without end."""
    while True:
        yield from loader


def drop_captions(embedded: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the captions set to zeros, for guidance without a classifier."""
    keep = torch.rand(len(embedded), generator=generator) >= share
    return embedded * keep.to(embedded)[:, None, None]


def random_camera(generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """World-to-camera [1, 4, 4] of a random point of view that looks at the origin, and its K [1, 3, 3]."""
    eye = nn.functional.normalize(torch.randn(3, generator=generator), dim=0) * CAMERA_DISTANCE
    forward = nn.functional.normalize(-eye, dim=0)
    # whichever axis is not along the view
    up = torch.eye(3)[int(forward.abs().argmin())]
    right = nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
    focal = 0.5 * size / np.tan(0.5 * FIELD_OF_VIEW)
    return viewmat[None], torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])


def photometric_loss(
    predicted: Tensor,
    actual: Tensor,
    size: int,
    generator: torch.Generator,
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
) -> Tensor:
    """L1, mask and LPIPS between renders of the predicted and the actual atlas from one random view.

    The paper compares with the object's reference images. Shards carry none, so the actual atlas is rendered:
    the same view of the same object, as well as it was fitted.

    Args:
        predicted: one atlas, not standardised, [16, size, size].
        actual: the same.
        size: of the view, pixels.
        generator: of the view.
        lpips: of two images [B, H, W, 3], or None.
    """
    viewmats, Ks = (t.to(predicted.device) for t in random_camera(generator, size))

    def render(atlas: Tensor) -> tuple[Tensor, Tensor]:
        g = unpack_tensor(atlas, clamp=True)
        colors, alphas, _ = rasterization(
            g.means, g.quats, g.scales, g.opacities, g.colors, viewmats, Ks, size, size,
            backgrounds=torch.ones(1, 3, device=atlas.device),
        )  # fmt: skip
        return colors, alphas

    color, alpha = render(predicted)
    with torch.no_grad():
        true_color, true_alpha = render(actual)
    loss = L1_WEIGHT * (color - true_color).abs().mean() + MASK_WEIGHT * (alpha - true_alpha).abs().mean()
    return loss if lpips is None else loss + LPIPS_WEIGHT * lpips(color, true_color)


class Trainer:
    """One process's share of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.step = args, 0
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(args.seed)
        filters = [] if args.min_psnr is None else [("psnr", ">=", args.min_psnr)]
        self.dataset = AtlasDataset(args.dataset, filters=filters, seed=args.seed)
        self.loader = AtlasLoader(self.dataset, args.batch_size, num_workers=args.workers)
        self.standard: Standard = self.dataset.standard().to(self.device)
        unet = tiny_unet(self.dataset.catalogue.size) if args.tiny_random else load_unet(args.checkpoint)
        self.unet = widened(unet).to(self.device)
        self.averaged = AveragedModel(self.unet, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
        self.model = (
            nn.parallel.DistributedDataParallel(self.unet) if distributed.is_initialized() else self.unet
        )
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=args.learning_rate)
        self.embed: Embed = (
            byte_embeddings(self.device)
            if args.tiny_random
            else clip_embeddings(args.checkpoint, self.device)
        )
        self.schedule = noise_schedule()
        self.lpips = load_lpips("vgg", args.lpips_weights, self.device)[0] if args.lpips_weights else None
        if args.resume:
            self.resume(args.resume)

    def train(self) -> None:
        """Train to the last step."""
        self.args.out.mkdir(parents=True, exist_ok=True)
        for batch in batches(self.loader):
            losses = self.update(batch)
            self.step += 1
            if self.rank == 0:
                log.info("step %d: %s", self.step, losses)
                with (self.args.out / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": self.step, **losses}) + "\n")
            if self.step % self.args.save_every == 0 or self.step >= self.args.steps:
                self.save()
            if self.step >= self.args.steps:
                return

    def update(self, batch: AtlasBatch) -> dict[str, float]:
        """One step of the optimiser; the losses."""
        # what is random depends on the step alone, so that a resumed run draws the same
        generator = torch.Generator().manual_seed(self.args.seed + (self.step << 20) + self.rank)
        clean = self.standard(batch["atlas"].to(self.device))
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        count = self.schedule.config.num_train_timesteps
        times = torch.randint(count, (len(clean),), generator=generator).to(self.device)
        noisy = self.schedule.add_noise(clean, noise, times)
        target = self.schedule.get_velocity(clean, noise, times)
        captions = drop_captions(self.embed(batch["caption"]), self.args.caption_dropout, generator)
        velocity = self.model(noisy, times, captions).sample
        losses = {"diffusion": nn.functional.mse_loss(velocity, target)}
        if self.args.photometric:
            signal = self.schedule.alphas_cumprod.to(clean)[times].view(-1, 1, 1, 1)
            estimate = self.standard.inverse(signal.sqrt() * noisy - (1 - signal).sqrt() * velocity)
            chosen = int(torch.randint(len(clean), (1,), generator=generator))
            losses["photometric"] = self.args.photometric * photometric_loss(
                estimate[chosen],
                self.standard.inverse(clean[chosen]),
                self.args.view_size,
                generator,
                self.lpips,
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.averaged.update_parameters(self.unet)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self) -> None:
        """Write a step-* folder; the data's state is the same on all ranks."""
        if self.rank:
            return
        folder = self.args.out / f"step-{self.step:06d}"
        self.averaged.module.save_pretrained(folder / "unet")
        (folder / "data.json").write_text(json.dumps(self.loader.state_dict()))
        state = {"step": self.step, "unet": self.unet.state_dict(), "averaged": self.averaged.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict()}, folder / "train.pt")

    def resume(self, folder: Path) -> None:
        """Go on where `save` was called."""
        state: dict[str, Any] = torch.load(folder / "train.pt", map_location=self.device, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.loader.load_state_dict(json.loads((folder / "data.json").read_text()))


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if distributed.is_torchelastic_launched():
        distributed.init_process_group()
        if torch.cuda.is_available():
            torch.cuda.set_device(distributed.get_rank() % torch.cuda.device_count())
    Trainer(args).train()
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
