"""`make bench-raster`: forward and backward of the CPU rasteriser and of a tiled torch renderer, in one run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from bench.record import interleaved, keep
from bench.scenes import camera, surface
from bench.tiled_torch import rasterize as tiled_torch
from gaussianverse.fitter.rasterize import rasterization

COUNTS, SIZES = (2_000, 10_000, 20_000), (128, 256, 512)
BACKGROUND = torch.tensor([1.0, 1.0, 1.0])


def leaves(count: int) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in surface(count)]


def ours(tensors: list[Tensor], size: int, backend: str) -> Callable[[], list[Tensor]]:
    view, K = camera(size)
    target = torch.rand((1, size, size, 3), generator=torch.Generator().manual_seed(0))

    def run() -> list[Tensor]:
        for t in tensors:
            t.grad = None
        image, alpha, _ = rasterization(
            *tensors,
            view,
            K,
            size,
            size,
            backgrounds=BACKGROUND[None],
            backend=backend,  # type: ignore[arg-type,misc]
        )
        ((image - target.to(image.dtype)).square().sum() + alpha.square().sum()).backward()  # type: ignore[no-untyped-call]
        return [t.grad for t in tensors if t.grad is not None]

    return run


def yardstick(tensors: list[Tensor], size: int) -> Callable[[], None]:
    view, K = camera(size)
    target = torch.rand((1, size, size, 3), generator=torch.Generator().manual_seed(0))[0]

    def run() -> None:
        for t in tensors:
            t.grad = None
        out = tiled_torch(*tensors, view[0], K[0], size, BACKGROUND)  # type: ignore[misc,arg-type]
        ((out[..., :3] - target).square().sum() + out[..., 3].square().sum()).backward()  # type: ignore[no-untyped-call]

    return run


def gradient_error() -> float:
    """Largest relative L2 error of a gradient compared with float64, for 500 Gaussians at 64 x 64."""
    tensors = leaves(500)
    fast = [g.clone() for g in ours(tensors, 64, "cpu")()]
    exact = [g.clone() for g in ours(tensors, 64, "reference")()]
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(fast, exact, strict=True))


def main() -> int:
    torch.set_num_threads(1)
    ms: dict[str, float] = {}
    torch_ms: dict[str, float] = {}
    for count in COUNTS:
        for size in SIZES:
            name = f"{count // 1000}k_{size}"
            runs: dict[str, Callable[[], object]] = {"cpu": ours(leaves(count), size, "cpu")}
            rounds = {"cpu": 30}
            if size == 128:
                runs["torch"] = yardstick(leaves(count), size)
                rounds["torch"] = 5
            times = interleaved(runs, rounds)
            ms[name] = times["cpu"]
            if "torch" in times:
                torch_ms[name] = times["torch"]
            sys.stderr.write(f"{name}: {times}\n")
    keep(
        "raster",
        {
            "speedup_10k_128": torch_ms["10k_128"] / ms["10k_128"],
            "cpu_ms": ms,
            "tiled_torch_ms": torch_ms,
            "max_rel_grad_error": gradient_error(),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
