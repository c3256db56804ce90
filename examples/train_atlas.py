"""Fine-tune a latent-diffusion UNet on atlases, as the paper does (section 5).

    python -m gaussianverse.examples.train_atlas DATASET OUT --checkpoint SD2_FOLDER --steps 100000 --batch-size 16
    python -m gaussianverse.examples.train_atlas out /tmp/tiny --tiny-random --steps 20  # on a CPU, no downloads
    torchrun --nproc-per-node 8 -m gaussianverse.examples.train_atlas ...                # on many GPUs

DATASET is a folder or s3://bucket/prefix. OUT gets `metrics.jsonl` and, every `--save-every` steps,
`step-000500/` with the averaged UNet, which `sample_atlas` reads, and the state for `--resume`: weights, optimiser,
and the position in the data, exact to the sample, also with another number of GPUs and workers. `--photometric W`
adds the paper's photometric term, computed with one of the object's reference views if the shards have some
(`run.views`), or with a render of the object's own atlas.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gaussianverse.atlas import AtlasDataset, AtlasLoader, Standard, unpack_tensor
from gaussianverse.atlas.reader.loader import AtlasBatch
from gaussianverse.examples.diffusion import (
    Embed,
    byte_embeddings,
    clip_embeddings,
    load_unet,
    noise_schedule,
    tiny_unet,
    widened,
)
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.rasterize import rasterization

L1_WEIGHT, MASK_WEIGHT, LPIPS_WEIGHT = 10.0, 1.0, 1.0
CAMERA_DISTANCE, FIELD_OF_VIEW = 1.6, 0.69
log = logging.getLogger("train_atlas")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", help="folder or s3://bucket/prefix")
    made.add_argument("out", type=Path)
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="diffusers folder with unet/ and text_encoder/")
    source.add_argument("--tiny-random", action="store_true", help="a small random UNet, captions embedded by bytes")
    made.add_argument("--resume", type=Path, help="a step-* folder of an earlier run")
    made.add_argument("--steps", type=int, default=100_000)
    made.add_argument("--batch-size", type=int, default=4, help="per GPU (default: 4)")
    made.add_argument("--workers", type=int, default=0, help="processes that read, per GPU")
    made.add_argument("--min-psnr", type=float, help="leave out objects whose fit has a lower PSNR")
    made.add_argument("--learning-rate", type=float, default=5e-5)
    made.add_argument("--ema", type=float, default=0.9999, help="decay of the averaged weights")
    made.add_argument("--caption-dropout", type=float, default=0.2)
    made.add_argument(
        "--photometric", type=float, default=0.0, help="weight of the photometric term, one view per step"
    )
    made.add_argument(
        "--view-size", type=int, default=256, help="side of rendered views in pixels, if shards have no views"
    )
    made.add_argument("--lpips-weights", type=Path, help="VGG's backbone weights, for an LPIPS term")
    made.add_argument("--save-every", type=int, default=5_000)
    made.add_argument("--seed", type=int, default=0)
    return made


def batches(loader: AtlasLoader) -> Iterator[AtlasBatch]:
    """Yield batches of epoch after epoch, without end."""
    while True:
        yield from loader


def drop_captions(embedded: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the captions to zero, for classifier-free guidance."""
    keep = torch.rand(len(embedded), generator=generator) >= share
    return embedded * keep.to(embedded)[:, None, None]


def random_camera(generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """World-to-camera [1, 4, 4] and K [1, 3, 3] of a camera at a random position that looks at the origin."""
    eye = nn.functional.normalize(torch.randn(3, generator=generator), dim=0) * CAMERA_DISTANCE
    forward = nn.functional.normalize(-eye, dim=0)
    # the axis that is least parallel to the view
    up = torch.eye(3)[int(forward.abs().argmin())]
    right = nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
    focal = 0.5 * size / np.tan(0.5 * FIELD_OF_VIEW)
    return viewmat[None], torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])


class Reference(NamedTuple):
    """One view of an object: colour on white [1, s, s, 3], alpha [1, s, s, 1], viewmats [1, 4, 4], Ks [1, 3, 3]."""

    color: Tensor
    alpha: Tensor
    viewmats: Tensor
    Ks: Tensor


def render(atlas: Tensor, viewmats: Tensor, Ks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Render an atlas [16, ..], not standardised: colour on white [1, size, size, 3], alpha [1, size, size, 1]."""
    g = unpack_tensor(atlas, clamp=True)
    colors, alphas, _ = rasterization(
        g.means, g.quats, g.scales, g.opacities, g.colors, viewmats, Ks, size, size,
        backgrounds=torch.ones(1, 3, device=atlas.device),
    )  # fmt: skip
    return colors, alphas


def given_view(batch: AtlasBatch, chosen: int, generator: torch.Generator, device: torch.device) -> Reference:
    """Random reference view of a batch's object `chosen`, from the shards."""
    views = batch["views"][chosen]
    k = torch.randint(len(views), (1,), generator=generator)
    rgba = views[k].permute(0, 2, 3, 1).to(device)
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    viewmats, Ks = (batch[name][chosen][k].to(device) for name in ("viewmats", "Ks"))
    return Reference(rgb * alpha + 1 - alpha, alpha, viewmats, Ks)


def rendered_view(atlas: Tensor, size: int, generator: torch.Generator) -> Reference:
    """Render an atlas from a random camera, for shards without views; its quality is that of the fit.

    Args:
        atlas: not standardised, [16, size, size].
        size: side of the view in pixels.
        generator: source of the random camera.
    """
    viewmats, Ks = (t.to(atlas.device) for t in random_camera(generator, size))
    with torch.no_grad():
        return Reference(*render(atlas, viewmats, Ks, size), viewmats, Ks)


def photometric_loss(
    predicted: Tensor, reference: Reference, lpips: Callable[[Tensor, Tensor], Tensor] | None
) -> Tensor:
    """L1, mask and LPIPS loss between the render of an atlas and a reference view.

    Args:
        predicted: one atlas, not standardised, [16, size, size].
        reference: view of the object.
        lpips: function of two images [B, H, W, 3], or None.
    """
    color, alpha = render(predicted, reference.viewmats, reference.Ks, reference.alpha.shape[1])
    loss = L1_WEIGHT * (color - reference.color).abs().mean()
    loss = loss + MASK_WEIGHT * (alpha - reference.alpha).abs().mean()
    return loss if lpips is None else loss + LPIPS_WEIGHT * lpips(color, reference.color)


class Trainer:
    """Training in one process of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.step = args, 0
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(args.seed)
        filters = [] if args.min_psnr is None else [("psnr", ">=", args.min_psnr)]
        # views=None reads reference views if the shards have some, for the photometric term
        views = None if args.photometric else False
        self.dataset = AtlasDataset(args.dataset, filters=filters, seed=args.seed, views=views)
        self.loader = AtlasLoader(self.dataset, args.batch_size, num_workers=args.workers)
        self.standard: Standard = self.dataset.standard().to(self.device)
        unet = tiny_unet(self.dataset.catalogue.size) if args.tiny_random else load_unet(args.checkpoint)
        self.unet = widened(unet).to(self.device)
        self.averaged = AveragedModel(self.unet, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
        self.model = nn.parallel.DistributedDataParallel(self.unet) if distributed.is_initialized() else self.unet
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=args.learning_rate)
        self.embed: Embed = (
            byte_embeddings(self.device) if args.tiny_random else clip_embeddings(args.checkpoint, self.device)
        )
        self.schedule = noise_schedule()
        self.lpips = load_lpips("vgg", args.lpips_weights, self.device)[0] if args.lpips_weights else None
        if args.resume:
            self.resume(args.resume)

    def train(self) -> None:
        """Train until the last step."""
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
        """Run one step of the optimiser; returns the losses."""
        # random numbers depend only on seed, step and rank, so that a resumed run draws the same ones
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
            if "views" in batch:
                reference = given_view(batch, chosen, generator, self.device)
            else:
                actual = self.standard.inverse(clean[chosen])
                reference = rendered_view(actual, self.args.view_size, generator)
            losses["photometric"] = self.args.photometric * photometric_loss(estimate[chosen], reference, self.lpips)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.averaged.update_parameters(self.unet)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self) -> None:
        """Write a step-* folder on rank 0; the loader's state is the same on all ranks."""
        if self.rank:
            return
        folder = self.args.out / f"step-{self.step:06d}"
        self.averaged.module.save_pretrained(folder / "unet")  # type: ignore[operator]
        (folder / "data.json").write_text(json.dumps(self.loader.state_dict()))
        state = {"step": self.step, "unet": self.unet.state_dict(), "averaged": self.averaged.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict()}, folder / "train.pt")

    def resume(self, folder: Path) -> None:
        """Restore the state written by `save`."""
        state: dict[str, Any] = torch.load(folder / "train.pt", map_location=self.device, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.loader.load_state_dict(json.loads((folder / "data.json").read_text()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
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
