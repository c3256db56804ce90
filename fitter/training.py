"""State that is shared by the steps of one fit: views on the device, their order, the loss, the deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.fitter.anchors import Anchors, Decoded
from gaussianverse.fitter.config import LPIPS_MIN_SIDE, FitConfig
from gaussianverse.fitter.errors import BadInput, FitTimeout, NanLoss
from gaussianverse.fitter.growth import Statistics, bounded
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.native.step import Pictures, Weights
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.rasterize import MAX_ALPHA, device_and_backend, rasterization
from gaussianverse.fitter.scene import Scene, make_scene
from gaussianverse.fitter.views import Views

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, number of Gaussians, loss)."""


class Training:
    """Training steps of one fit: the scene at each step's resolution, the order of views, the loss."""

    def __init__(
        self, views: Views, config: FitConfig, seed: int, deadline: float | None, progress: Progress | None
    ) -> None:
        self.config, self.deadline, self.progress = config, deadline, progress
        self.device, self.backend = device_and_backend(config.backend)
        if self.backend == "gsplat" and config.max_alpha != MAX_ALPHA:
            raise ConfigError(
                f"max_alpha is {config.max_alpha!r}, expected {MAX_ALPHA}, which gsplat has compiled in"
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.lpips: Callable[[Tensor, Tensor], Tensor] | None = None
        self.lpips_sha256 = ""
        if config.loss.lpips_net != "none":
            self.lpips, self.lpips_sha256 = load_lpips(config.loss.lpips_net, config.loss.lpips_weights, self.device)
        self.full = make_scene(views, self.device)
        self.small = make_scene(views, self.device, config.start_size) if config.start_size else self.full
        net, side = config.loss.lpips_net, min(self.small.height, self.small.width)
        if side < LPIPS_MIN_SIDE[net]:
            raise BadInput(
                f"views have {self.small.width} x {self.small.height} pixels, and LPIPS with {net} needs "
                f"{LPIPS_MIN_SIDE[net]}; render larger ones, raise size and start_size, or set lpips_net = 'none'"
            )
        self._pictures = dict[bool, Pictures]()
        self._order: list[int] = []
        self.loss = math.nan
        self.gaussians_now = 0
        self.pruned = 0

    def bounded(self, anchors: Anchors, statistics: Statistics) -> Anchors:
        """Keep at most tau offsets alive, by the configured ranking; counts the dropped ones."""
        before = int(anchors.alive.sum())
        anchors = bounded(anchors, statistics, self.config.tau, self.config.ranking, self.generator)
        self.pruned += before - int(anchors.alive.sum())
        return anchors

    def scene(self, step: int) -> Scene:
        """Scene at the resolution of a step."""
        return self.small if step < self.config.start_until * self.config.steps else self.full

    def steps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield (step, view) for steps `first` to `last` - 1, with all views once before any twice."""
        for step in range(first, last):
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise FitTimeout(f"the deadline passed at step {step} of {self.config.steps}")
            if not self._order:
                self._order = torch.randperm(len(self.full), generator=self.generator).tolist()
            yield step, self._order.pop()

    def weights(self, step: int) -> Weights:
        """Weights of the loss at a step, but for LPIPS."""
        loss = self.config.loss
        if loss.l2 == 0 or step < loss.l2_from * self.config.steps:
            return Weights(loss.l1, loss.ssim, loss.volume)
        return Weights(loss.l1 / 2, loss.ssim, loss.volume, loss.l2)

    def background(self) -> Tensor:
        """Background colour [3], random at each step if so configured."""
        if self.config.background == "random":
            return torch.rand(3, generator=self.generator).to(self.device)
        return torch.full((3,), float(self.config.background == "white"), device=self.device)

    def backward(self, step: int, view: int, decoded: Decoded) -> dict[str, Tensor]:
        """Render a view, compute the loss (paper eq. 2) and its gradients; returns the rasteriser's `meta`."""
        config, weights = self.config.loss, self.weights(step)
        scene, background = self.scene(step), self.background()
        image, meta = self._draw(scene, view, decoded, background)
        reference = scene.composited(torch.tensor([view]), background)
        l1, ssim = l1_ssim(image, reference)
        loss = weights.l1 * l1 + weights.ssim * (1 - ssim)
        if weights.l2 > 0:
            loss = loss + weights.l2 * (image - reference).square().mean()
        drawn = (meta["radii"][0] > 0).all(-1)
        if weights.volume > 0 and bool(drawn.any()):
            loss = loss + weights.volume * decoded.scales[drawn].prod(1).mean()
        if self.lpips is not None and self.has_lpips and step % config.lpips_every == 0:
            pair = self._cropped(image, reference, config.lpips_crop)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.lpips_bf16):
                distance = self.lpips(*pair)
            loss = loss + config.lpips_every * config.lpips * distance.float()
        value = float(loss.detach())
        if math.isfinite(value) and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.report(step, view, value, len(decoded.means))
        return meta

    def _cropped(self, image: Tensor, reference: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The same random square of two images [1, H, W, 3], or all of an axis that is no longer than `side`."""
        for axis in (1, 2):
            length = image.shape[axis]
            if 0 < side < length:
                first = int(torch.randint(length - side + 1, (1,), generator=self.generator))
                image, reference = image.narrow(axis, first, side), reference.narrow(axis, first, side)
        return image, reference

    def render(self, step: int, view: int, decoded: Decoded, background: Tensor) -> Tensor:
        """Render a view [1, H, W, 3] at the resolution of a step over `background` [3]."""
        return self._draw(self.scene(step), view, decoded, background)[0]

    def _draw(
        self, scene: Scene, view: int, decoded: Decoded, background: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        index = torch.tensor([view])
        image, _, meta = rasterization(
            decoded.means, decoded.quats, decoded.scales, decoded.opacities, decoded.colors, scene.viewmats[index],
            scene.Ks[index], scene.width, scene.height, backgrounds=background[None], backend=self.backend,
            max_alpha=self.config.max_alpha,
        )  # fmt: skip
        return image.float(), meta

    def report(self, step: int, view: int, loss: float, gaussians: int) -> None:
        """Note the loss of a step, and report the progress.

        Raises:
            NanLoss: the loss is not finite.
        """
        self.loss, self.gaussians_now = loss, gaussians
        if not math.isfinite(loss):
            raise NanLoss(f"the loss is {loss} at step {step}, view {self.full.names[view]}")
        if self.progress is not None:
            self.progress(step + 1, gaussians, loss)

    @property
    def has_lpips(self) -> bool:
        """Whether LPIPS is part of the loss."""
        return self.lpips is not None and self.config.loss.lpips > 0

    def pictures(self, step: int) -> Pictures:
        """The views at the resolution of a step, as the native kernels read them."""
        scene = self.scene(step)
        key = scene is self.full
        if key not in self._pictures:
            self._pictures[key] = Pictures.of(scene.rgba.numpy(), scene.viewmats.numpy(), scene.Ks.numpy())
        return self._pictures[key]
