"""Comparison of gsplat with the other backends, and the golden file that carries it to machines without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.target import Target
from bench.scenes import camera, surface
from gaussianverse.fitter.rasterize import rasterization

FLIP = 1e-4
"""Image difference above which a pixel has flipped at a hard threshold."""
FLIPPED_MOST = 0.005
FORWARD_MOST = 1e-4
FLIP_MOST = 0.01
GRADIENT_MOST = 1e-3
"""Bounds: share of flipped pixels; difference of the others; that of flipped ones, each a step of 1/255 or two;
relative difference of gradients and contributions."""
INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
TRAINED = INPUTS[:5]


@dataclass(frozen=True)
class Drawn:
    """What one backend makes of a scene, in float64 on the CPU.

    Attributes:
        image: RGB and alpha on white, [H, W, 4].
        values: gradients of the five trained tensors by name; `weight`, the sum of T alpha of each Gaussian over the
            pixels [N]; and `removal`, the squared change of the image that a fit expects of its removal [N].
    """

    image: Tensor
    values: dict[str, Tensor]


def scene(count: int, size: int) -> dict[str, Tensor]:
    """A scene's tensors by the names of `INPUTS`, on the CPU."""
    return dict(zip(INPUTS, (*surface(count), *camera(size)), strict=True))


def drawn(backend: str, inputs: dict[str, Tensor], size: int, device: torch.device, judged: Tensor) -> Drawn:
    """Render a scene; gradients and contributions are of the pixels that `judged` [H, W] has as 1."""
    tensors = {name: t.clone().to(device).requires_grad_(name in TRAINED) for name, t in inputs.items()}
    image, alpha, _ = rasterization(
        **tensors, width=size, height=size, backgrounds=torch.ones((1, 3), device=device), backend=backend
    )
    both = torch.cat([image[0], alpha[0]], -1)
    mask = judged[..., None].to(both)
    generator = torch.Generator().manual_seed(0)
    slopes = torch.rand((size, size, 4), generator=generator).to(both) * mask
    signs = (2 * torch.randint(0, 2, (size, size, 3), generator=generator) - 1).to(both) * mask
    trained = [tensors[name] for name in TRAINED]
    gradients = torch.autograd.grad((both * slopes).sum(), trained, retain_graph=True)
    # blending weight: the derivative of the sum of red by a Gaussian's red
    (weight,) = torch.autograd.grad((both[..., :1] * mask).sum(), tensors["colors"], retain_graph=True)
    (slope,) = torch.autograd.grad((both[..., :3] * signs).sum(), tensors["opacities"])
    values = dict(zip(TRAINED, gradients, strict=True))
    values |= {"weight": weight[:, 0], "removal": (slope * tensors["opacities"]).square()}
    return Drawn(both.detach().cpu().double(), {name: v.detach().cpu().double() for name, v in values.items()})


def flipped(one: Tensor, other: Tensor) -> Tensor:
    """Mask [H, W] of the pixels in which two images differ by more than rounding."""
    return (one - other).abs().amax(-1) > FLIP


def relative(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm of the second."""
    return float((one - other).norm() / other.norm())


def parity(one: str, other: str, count: int, size: int, devices: tuple[torch.device, torch.device]) -> dict[str, Any]:
    """Compare two backends, each on its device: flipped share, forward difference, relative difference by name."""
    inputs, everywhere = scene(count, size), torch.ones((size, size))
    pair = tuple(zip((one, other), devices, strict=True))
    a, b = (drawn(backend, inputs, size, device, everywhere).image for backend, device in pair)
    off = flipped(a, b)
    x, y = (drawn(backend, inputs, size, device, (~off).float()) for backend, device in pair)
    found = {name: relative(x.values[name], y.values[name]) for name in x.values}
    share, apart = float(off.double().mean()), (a - b).abs().amax(-1)
    forward, flip = float((apart * ~off).max()), float((apart * off).max())
    near = share <= FLIPPED_MOST and forward <= FORWARD_MOST and flip <= FLIP_MOST
    return {
        "flipped": share,
        "flip": flip,
        "forward": forward,
        "relative": found,
        "ok": near and max(found.values()) <= GRADIENT_MOST,
    }


def write_golden(file: Path, target: Target) -> dict[str, Any]:
    """Write what gsplat draws, with its inputs, for `tests/test_golden.py`; pixels that flip are not judged.

    Returns:
        Bytes, and the share of pixels that are judged.
    """
    count, size = target.sizes.golden
    inputs, cpu = scene(count, size), torch.device("cpu")
    everywhere = torch.ones((size, size))
    image = drawn("gsplat", inputs, size, target.device, everywhere).image
    judged = torch.ones((size, size), dtype=torch.bool)
    for backend in ("cpu", "reference"):
        judged &= ~flipped(image, drawn(backend, inputs, size, cpu, everywhere).image)
    result = drawn("gsplat", inputs, size, target.device, judged.float())
    arrays: dict[str, Any] = {f"in_{name}": t.numpy() for name, t in inputs.items()}
    arrays |= {f"out_{name}": t.float().numpy() for name, t in result.values.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file, image=result.image.float().numpy(), judged=judged.numpy(), device=np.array(target.name), **arrays
    )
    return {"file": file.name, "bytes": file.stat().st_size, "judged": float(judged.double().mean())}


def section(target: Target, out: Path) -> dict[str, Any]:
    """Compare gsplat with both other backends, and them with each other; write the golden file."""
    count, size = target.sizes.parity
    gpu, cpu = target.device, torch.device("cpu")
    return {
        "gsplat_cpu": parity("gsplat", "cpu", count, size, (gpu, cpu)),
        "gsplat_reference": parity("gsplat", "reference", count, size, (gpu, cpu)),
        "cpu_reference": parity("cpu", "reference", count, size, (cpu, cpu)),
        "golden": write_golden(out / "golden.npz", target),
    }
