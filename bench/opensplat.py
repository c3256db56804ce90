"""`make bench-opensplat ARGS='--opensplat PROGRAM'`: fits against OpenSplat's, of equal views in equal CPU seconds.

Both programs read the same images from disk, in a process of one thread whose CPU seconds (user and system, start and
reading included) are counted. OpenSplat gets as many iterations as fit into the seconds of our fit, for each of
`SETTINGS`; the best is compared. docs/opensplat.md says how the binary is built.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.fit import profile
from bench.objects import SAMPLE, mic
from bench.record import keep
from gaussianverse.atlas.interchange.harmonics import ViewDependent
from gaussianverse.atlas.interchange.ply import read_view_dependent, write_ply
from gaussianverse.fitter import fit_object, load_views
from gaussianverse.fitter.initial import hull_points
from gaussianverse.fitter.metrics import psnr, render
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views, split_heldout

Array = NDArray[np.float64]

WHITE = (1.0, 1.0, 1.0)
OWN = (0.6130, 0.0101, 0.3984)
"""The background over which OpenSplat renders while it trains; no option changes it."""
WITHIN = (0.95, 1.1)
"""OpenSplat's CPU seconds as a multiple of ours."""
_TRIES = 6
_FIRST = 200
_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Setting:
    """Settings of a run of OpenSplat.

    Attributes:
        points: number of initial points, on the surface of the visual hull.
        background: what its images are composited over.
        densify: whether Gaussians are split, duplicated and culled, ten times in the first half of the iterations.
        halvings: how often the images are halved at first.
        full_from: share of the iterations from which images have their full size; it is doubled in even intervals.
        sh_degree: of its colours, which is reached after a tenth of the iterations for each degree.
    """

    points: int
    background: tuple[float, float, float] = OWN
    densify: bool = True
    halvings: int = 0
    full_from: float = 0.0
    sh_degree: int = 3

    def options(self, iterations: int) -> list[str]:
        """OpenSplat's command line for this many iterations."""
        every = max(2, iterations // 20)
        return [
            f"--num-iters={iterations}",
            f"--num-downscales={self.halvings}",
            f"--resolution-schedule={max(1, round(self.full_from * iterations / max(1, self.halvings)))}",
            f"--sh-degree={self.sh_degree}",
            f"--sh-degree-interval={max(1, iterations // 10)}",
            f"--refine-every={every}",
            f"--warmup-length={every if self.densify else iterations}",
        ]


SETTINGS = {
    "10,000 points": Setting(10_000),
    "5,000 points, half size": Setting(5_000, densify=False, halvings=1, full_from=0.9),
    "5,000 points, half size, densified": Setting(5_000, halvings=1, full_from=0.9),
    "5,000 points, half size, over white": Setting(5_000, WHITE, densify=False, halvings=1, full_from=0.9),
}


def scenes() -> Iterator[tuple[str, Views, Views]]:
    """Name, training views and held-out views of mic at 200 px, where its data is, and of spot at 256 px."""
    found = mic(200)
    if found is None:
        sys.stderr.write("mic: data is absent, left out\n")
    else:
        yield "mic", *found
    yield "spot", *split_heldout(load_views(SAMPLE / "spot", size=256), 8)


def composited(views: Views, background: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Images [V, H, W, 3] over a background in [0, 1]."""
    alpha = views.images[..., 3:] / 255
    over = views.images[..., :3] * alpha + 255 * np.asarray(background) * (1 - alpha)
    return over.round().astype(np.uint8)


def export(folder: Path, views: Views, images: NDArray[np.uint8]) -> None:
    """Write `images` and the cameras of `views` as a nerfstudio folder, whose points are `points.ply`."""
    folder.mkdir(parents=True)
    frames = []
    for number, (image, c2w, K) in enumerate(zip(images, views.c2w, views.Ks, strict=True)):
        name = f"{number:03d}.png"
        Image.fromarray(image).save(folder / name)
        intrinsics = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
        pose = (c2w @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()
        frames.append(
            {"file_path": name, "transform_matrix": pose, "w": views.width, "h": views.height, **intrinsics}
        )
    file = {"camera_model": "PINHOLE", "ply_file_path": "points.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(file))


def colours_at(points: Array, views: Views) -> NDArray[np.uint8]:
    """Colours [P, 3]: the mean of the pixels that points [P, 3] fall on in all views, weighted by alpha."""
    total, weight = np.zeros((len(points), 3)), np.full((len(points), 1), 1e-9)
    for image, viewmat, K in zip(views.images, views.viewmats, views.Ks, strict=True):
        camera = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        x, y = (np.floor(camera[:, i] / camera[:, 2] * K[i, i] + K[i, 2]).astype(np.intp) for i in (0, 1))
        seen = (camera[:, 2] > 0) & (x >= 0) & (x < views.width) & (y >= 0) & (y < views.height)
        pixels = image[y[seen], x[seen]].astype(np.float64)
        total[seen] += pixels[:, :3] * pixels[:, 3:]
        weight[seen] += pixels[:, 3:]
    return (total / weight).round().astype(np.uint8)


def write_points(path: Path, views: Views, count: int) -> None:
    """Write `count` coloured points of the visual hull as a PLY file."""
    points = hull_points(views, count, np.random.default_rng(0))
    table = np.empty(count, [*((axis, "<f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))])
    for axis, column in zip("xyz", points.T, strict=True):
        table[axis] = column
    for name, column in zip(("red", "green", "blue"), colours_at(points, views).T, strict=True):
        table[name] = column
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + table.tobytes())


def heldout_psnr(seen: ViewDependent, views: Views, background: tuple[float, float, float] = WHITE) -> float:
    """Mean PSNR in dB of Gaussians in the views' world over `background`, against the views over white."""
    scene, over = make_scene(views, torch.device("cpu")), torch.tensor(background)
    values = []
    for v in range(len(views)):
        colors = seen.colors_from(views.c2w[v, :3, 3]).astype(np.float32)
        image = render(replace(seen.gaussians, colors=colors), scene, v, "cpu", over)
        values.append(psnr(image, scene.composited(torch.tensor([v]), torch.ones(3))[0]))
    return float(np.mean(values))


def children_s() -> float:
    """CPU seconds of all child processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _fit(folder: str, out: str, size: int, seed: int) -> None:
    fit = fit_object(load_views(folder), profile(size=size, start_size=size // 2), seed=seed)
    placed = fit.prepared.placed
    Path(out).write_bytes(write_ply(fit.gaussians, center=placed.center, unit=placed.unit))


def ours(folder: Path, test: Views, seed: int) -> dict[str, Any]:
    """Fit a folder's views by profile `quick` in a process of its own."""
    out, before = folder / f"{seed}.ply", children_s()
    size = max(test.height, test.width)
    child = multiprocessing.get_context("spawn").Process(target=_fit, args=(str(folder), str(out), size, seed))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"the fit of {folder} ended with exit code {child.exitcode}")
    seen = read_view_dependent(out.read_bytes())
    return {"cpu_s": children_s() - before, "n": len(seen), "psnr": heldout_psnr(seen, test)}


def run(binary: Path, folder: Path, options: list[str]) -> tuple[float, ViewDependent]:
    """CPU seconds of OpenSplat with these options, and its Gaussians in the views' world."""
    before, out = children_s(), folder / "splat.ply"
    command = [str(binary), str(folder), "--cpu", "--keep-crs", "-o", str(out), *options]
    done = subprocess.run(command, env={**os.environ, **_THREADS}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return children_s() - before, read_view_dependent(out.read_bytes())


def at_budget(budget: float, attempt: Callable[[int], float]) -> tuple[int, float]:
    """Number of iterations whose cost is within `WITHIN` of the budget, and that cost; the last attempt is of it.

    Args:
        budget: CPU seconds.
        attempt: runs a number of iterations and returns its CPU seconds.

    Raises:
        RuntimeError: not found in six attempts.
    """
    iterations, before, spent = _FIRST, 0, 0.0
    for _ in range(_TRIES):
        cost = attempt(iterations)
        if WITHIN[0] * budget <= cost <= WITHIN[1] * budget:
            return iterations, cost
        # what a start costs is not known before the second attempt
        each = max((cost - spent) / (iterations - before), 0.2 * cost / iterations)
        before, spent = iterations, cost
        iterations += round((budget - cost) / each) or 1
        if iterations < 1:
            break
    raise RuntimeError(f"no number of iterations costs {budget:.1f} CPU s; {before} cost {spent:.1f}")


def theirs(binary: Path, folder: Path, setting: Setting, train: Views, test: Views, budget: float) -> dict[str, Any]:
    """The result of OpenSplat with this setting in `budget` CPU seconds."""
    export(folder, train, composited(train, setting.background))
    write_points(folder / "points.ply", train, setting.points)
    found: list[ViewDependent] = []

    def attempt(iterations: int) -> float:
        cost, seen = run(binary, folder, setting.options(iterations))
        found[:] = [seen]
        return cost

    iterations, cost = at_budget(budget, attempt)
    # what was trained over white has Gaussians in front of OpenSplat's own background, and is measured there
    over = OWN if setting.background == WHITE else WHITE
    psnr_db = heldout_psnr(found[0], test, over)
    return {"iterations": iterations, "cpu_s": cost, "n": len(found[0]), "psnr": psnr_db}


def compared(binary: Path, work: Path, train: Views, test: Views, seeds: int) -> dict[str, Any]:
    """Our fits of one scene and OpenSplat's, and by how much ours are better."""
    export(work / "ours", train, train.images)
    fits = [ours(work / "ours", test, seed) for seed in range(seeds)]
    budget = float(np.mean([fit["cpu_s"] for fit in fits]))
    sys.stderr.write(f"ours: {fits}\n")
    rows = {}
    for number, (name, setting) in enumerate(SETTINGS.items()):
        rows[name] = theirs(binary, work / str(number), setting, train, test, budget)
        sys.stderr.write(f"{name}: {rows[name]}\n")
    best = max(rows, key=lambda name: rows[name]["psnr"])
    gain = float(np.mean([fit["psnr"] for fit in fits])) - rows[best]["psnr"]
    return {"gain_db": gain, "best": best, "ours": fits, "opensplat": rows}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and write its result; exit code 1 without a binary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opensplat", type=Path, help="OpenSplat's program")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of our fits")
    options = parser.parse_args(arguments)
    if options.opensplat is None or not os.access(options.opensplat, os.X_OK):
        sys.stderr.write(
            f"error: no program of OpenSplat at {options.opensplat}: pass one with --opensplat PATH; "
            "docs/opensplat.md says how it is built\n"
        )
        return 1
    torch.set_num_threads(1)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, train, test in scenes():
            result[name] = compared(options.opensplat, Path(folder) / name, train, test, options.seeds)
    keep("opensplat", {"background": "white", "gain_db_min": min(r["gain_db"] for r in result.values()), **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
