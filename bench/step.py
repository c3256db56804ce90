"""`make bench-step`: a training step of plain Gaussians in one native call, and by autograd, in one run.

Both train the same Gaussians on the same views, with the same weights of the loss. The best of several passes counts,
since the machine may be shared.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from itertools import cycle

import numpy as np
import torch

from bench.record import keep
from bench.scenes import camera, surface
from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.sources import INSTRUCTION_SETS
from gaussianverse.fitter.native.step import Pictures, PlainStep, Weights
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

SIZES = ((128, 10_000), (256, 10_000), (512, 10_000), (512, 36_864))
VIEWS, PASSES = 12, 5
WEIGHTS, MAX_ALPHA = Weights(0.8, 0.2, 0.01), 0.999
RATES = {"means": 1e-5, "log_scales": 1e-4, "quats": 1e-4, "logits": 1e-3, "colors": 1e-3}
WHITE = (1.0, 1.0, 1.0)


def around(size: int) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera matrices and intrinsics of `VIEWS` cameras around the object."""
    view, K = camera(size)
    turns = []
    for k in range(VIEWS):
        angle = 2 * math.pi * k / VIEWS
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        turns.append(view[0] @ turn)
    return torch.stack(turns).double().numpy(), K.repeat(VIEWS, 1, 1).double().numpy()


def references(size: int) -> Views:
    """Views of a denser surface with other colours: what a fit is on its way to."""
    means, quats, scales, opacities, colors = surface(60_000, seed=1)
    viewmats, Ks = around(size)
    with torch.no_grad():
        image, alpha, _ = rasterization(
            means, quats, scales, opacities, 0.5 * (colors + colors.roll(1, 0)), torch.from_numpy(viewmats).float(),
            torch.from_numpy(Ks).float(), size, size, backend="cpu",
        )  # fmt: skip
    rgba = torch.cat([image / alpha.clamp(min=1e-3), alpha], -1).clamp(0, 1)
    images = (255 * rgba).round().byte().numpy()
    return Views(images, np.linalg.inv(viewmats), Ks, tuple(f"{k}" for k in range(VIEWS)))


def start(count: int) -> Plain:
    means, quats, scales, opacities, colors = surface(count)
    return Plain(means, torch.log(scales), quats, torch.logit(opacities), colors)


def native(plain: Plain, views: Views) -> Callable[[], None]:
    """Takes a step with the library that is chosen when it is made."""
    step = PlainStep({name: tensor.numpy() for name, tensor in plain.parameters().items()})
    pictures, order = Pictures.of(views.images, views.viewmats, views.Ks), cycle(range(VIEWS))
    return lambda: (step.step(pictures, [next(order)], WHITE, RATES, WEIGHTS, MAX_ALPHA), None)[1]


def autograd(plain: Plain, views: Views) -> Callable[[], None]:
    scene, order = make_scene(views, torch.device("cpu")), cycle(range(VIEWS))
    adam = RowAdam(plain.parameters(), {name: (rate, rate) for name, rate in RATES.items()})
    trained, white = Plain(**adam.tensors), torch.tensor(WHITE)

    def step() -> None:
        index, d = torch.tensor([next(order)]), trained.decode()
        image, _, meta = rasterization(
            d.means, d.quats, d.scales, d.opacities, d.colors, scene.viewmats[index], scene.Ks[index], scene.width,
            scene.height, backgrounds=white[None], backend="cpu", max_alpha=MAX_ALPHA,
        )  # fmt: skip
        l1, ssim = l1_ssim(image, scene.composited(index, white))
        drawn = (meta["radii"][0] > 0).all(-1)
        loss = WEIGHTS.l1 * l1 + WEIGHTS.ssim * (1 - ssim) + WEIGHTS.volume * d.scales[drawn].prod(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step(0.0)

    return step


def best_ms(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Thread CPU milliseconds of a step: the best of `PASSES` passes over all views; passes alternate."""
    best = dict.fromkeys(runs, math.inf)
    for _ in range(1 + PASSES):  # the first warms up, and does not win
        for name, run in runs.items():
            begun = time.thread_time()
            for _ in range(VIEWS):
                run()
            best[name] = min(best[name], 1e3 * (time.thread_time() - begun) / VIEWS)
    return best


def main() -> int:
    torch.set_num_threads(1)
    chosen = library.instruction_set()
    sets = INSTRUCTION_SETS[1 : INSTRUCTION_SETS.index(chosen) + 1]
    table: dict[str, dict[str, float]] = {}
    for size, count in SIZES:
        views, runs = references(size), dict[str, Callable[[], None]]()
        for name in sets:
            library.instruction_set = lambda name=name: name  # type: ignore[assignment,misc]
            runs[name] = native(start(count), views)
        runs["autograd"] = autograd(start(count), views)
        table[f"{round(count / 1000)}k_{size}"] = times = best_ms(runs)
        sys.stderr.write(f"{size} px, {count} Gaussians: {times}\n")
    result: dict[str, object] = {f"step_ms_{name}": times[chosen] for name, times in table.items()}
    result["instruction_set"], result["ms"] = chosen, table
    result["speedup_37k_512"] = table["37k_512"]["autograd"] / table["37k_512"][chosen]
    keep("step", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
