"""Views for training: bytes on the device, at one resolution, composited when they are needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gaussianverse.fitter.views import Views, resize


@dataclass(frozen=True)
class Scene:
    """V views as tensors.

    Attributes:
        rgba: straight alpha, uint8 [V, H, W, 4].
        viewmats: world-to-camera, float32 [V, 4, 4].
        Ks: pixels, float32 [V, 3, 3].
        names: names of the views.
    """

    rgba: Tensor
    viewmats: Tensor
    Ks: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.viewmats)

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return int(self.rgba.shape[1])

    @property
    def width(self) -> int:
        """Image width in pixels."""
        return int(self.rgba.shape[2])

    def composited(self, index: Tensor, background: Tensor) -> Tensor:
        """Reference images [B, H, W, 3] of views `index` [B] over `background` [3]."""
        # planar in memory for the CPU kernels, channels last in shape for gsplat
        planes = self.rgba[index].permute(0, 3, 1, 2).contiguous().float().div_(255)
        alpha = planes[:, 3:].permute(0, 2, 3, 1)
        return (planes[:, :3] * planes[:, 3:]).permute(0, 2, 3, 1) + (1 - alpha) * background


def make_scene(views: Views, device: torch.device, size: int | None = None) -> Scene:
    """Move views to `device`, shrunk to `size` (longer side in pixels) if they are larger."""
    if size:
        views = resize(views, size)
    return Scene(
        torch.from_numpy(views.images).to(device),
        torch.from_numpy(views.viewmats).float().to(device),
        torch.from_numpy(views.Ks).float().to(device),
        views.names,
    )
