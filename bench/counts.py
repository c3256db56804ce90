"""`make bench-counts`: whether the number of Gaussians follows the object, against fits held at the bound."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench.objects import SAMPLE, SHARED
from bench.perceived import lpips_of
from bench.pose_sets import cameras, intrinsics, made, poses_of, quaternius
from bench.record import keep
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, fit_object, load_profile, load_views
from gaussianverse.fitter.views import Views
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.drawing import Renderer
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh
from gaussianverse.pipeline.ops.evaluation.statistics import interval

PRIMITIVES = ("cube", "sphere", "needle", "ring")
"""Made objects of one colour: what a rule that follows the object must leave with little."""
FULL = 0.99
"""Share of the bound from which a fit counts as filling it."""


def drawn(mesh: Mesh, size: int) -> Views:
    """The product's 40 views of a mesh."""
    poses = poses_of(mesh)
    with Renderer(mesh, shading="diffuse") as renderer:
        images = np.stack([renderer.color(camera) for camera in cameras(poses, size)])
    return Views(images, poses, intrinsics(len(poses), size), tuple(f"{k:05d}" for k in range(len(poses))))


def objects(count: int, size: int) -> Iterator[tuple[str, Views]]:
    """The sample's objects, primitives, and meshes of one collection and of Objaverse, in a fixed order."""
    for folder in sorted(path for path in SAMPLE.iterdir() if path.is_dir()):
        yield folder.name, load_views(folder, size=size)
    shapes = made()
    for name in PRIMITIVES:
        yield name, drawn(shapes[name], size)
    files = sorted((SHARED / "meshes" / "objaverse").glob("*.glb")) + quaternius()
    found = len(PRIMITIVES) + 4
    for file in files:
        if found >= count:
            return
        try:
            yield f"{file.parent.name}/{file.stem[:24]}", drawn(load_mesh(file), size)
        except RenderError:
            continue
        found += 1


def measured(views: Views, config: FitConfig, seed: int) -> dict[str, Any]:
    """A fit's count, held-out PSNR and LPIPS, complexity and CPU seconds."""
    started = time.process_time()
    fit = fit_object(views, config, seed=seed)
    cpu_s = time.process_time() - started
    return {
        "n": len(fit.gaussians),
        "psnr": float(fit.stats["psnr"]),
        "lpips": lpips_of(fit.gaussians, fit.prepared),
        "complexity": float(fit.stats["complexity"]),
        "coverage": float(fit.stats["coverage"]),
        "cpu_s": cpu_s,
    }


def summary(table: list[dict[str, Any]], tau: int) -> dict[str, Any]:
    """The benchmark's figures over fits by the rule and at the bound."""
    names = list(dict.fromkeys(row["object"] for row in table))

    def mean(of: str, kind: str) -> Any:
        found = {o: [row[kind][of] for row in table if row["object"] == o] for o in names}
        return np.array([np.mean(found[o]) for o in names])

    n, complexity = mean("n", "rule"), mean("complexity", "rule")
    loss = mean("psnr", "bound") - mean("psnr", "rule")
    plain = np.array([name not in PRIMITIVES for name in names])
    told = complexity >= 0  # without a pixel inside its rims, an object's complexity is not known
    detail = complexity * mean("coverage", "rule")

    def spearman(measure: Any, among: Any) -> float:
        return float(spearmanr(n[told & among], measure[told & among]).statistic)

    return {
        "objects": len(names),
        "seeds": len({row["seed"] for row in table}),
        "tau": tau,
        "share_at_bound": float(np.mean(n >= FULL * tau)),
        "gaussians_mean_std": [float(n.mean()), float(n.std())],
        "spearman": spearman(complexity, told),
        "spearman_without_primitives": spearman(complexity, plain),
        "spearman_detail": spearman(detail, told),
        "spearman_detail_without_primitives": spearman(detail, plain),
        "without_complexity": [name for name, known in zip(names, told, strict=True) if not known],
        "psnr_loss_db": float(loss.mean()),
        "psnr_loss_db_95": interval(loss),
        "psnr_loss_worst_db": float(loss.max()),
        "cube_share": float(n[names.index("cube")] / tau),
        "cpu_s": {kind: float(mean("cpu_s", kind).mean()) for kind in ("rule", "bound")},
    }


def main() -> None:
    """Fit each object by a profile, and by the same profile without pruning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epsilon", type=float, help="default: the profile's")
    args = parser.parse_args()
    rule = from_table(FitConfig, load_profile(args.profile)["fit"])
    if args.epsilon is not None:
        rule = dataclasses.replace(rule, counts=dataclasses.replace(rule.counts, epsilon=args.epsilon))
    bound = dataclasses.replace(rule, counts=dataclasses.replace(rule.counts, epsilon=0.0))
    table: list[dict[str, Any]] = []
    chosen = list(objects(args.objects, rule.size))
    for seed in range(args.seeds):
        for name, views in chosen:
            row = {"object": name, "seed": seed}
            row |= {kind: measured(views, c, seed) for kind, c in (("rule", rule), ("bound", bound))}
            table.append(row)
            sys.stderr.write(f"{row}\n")
        # what is there holds if a later seed is cut off
        keep(
            "counts",
            {"profile": args.profile, "epsilon": rule.counts.epsilon, **summary(table, rule.tau), "table": table},
        )


if __name__ == "__main__":
    main()
