"""`python -m bench.gates`: numbers that separate right orders from wrong ones, over shapes, counts and real fits.

Each object is packed correctly and with every index error. For each order three candidate numbers are measured: the
smoothness of position, the smoothness of the sphere points of the cells, and the relative error of the offsets' cost
against the transport's. docs/atlas-gates.md draws the conclusion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.record import keep
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.gates import MAX_COST_ERROR
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.atlas.padding import place, prune
from gaussianverse.atlas.plane import plane_indices
from gaussianverse.atlas.smoothness import smoothness, unrolled
from gaussianverse.atlas.sphere import fibonacci_sphere

SIZE = 128
CELLS = SIZE * SIZE
COUNTS = (8, 50, 200, 1_000, 4_000, 10_435, 16_384, 36_864)
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gaussianverse_samples"
SHAPES = (
    "shell", "volume", "ball", "rod", "needle", "line", "plate", "plane", "two clusters", "corner", "tall",
)  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = dict[str, float]


def cloud(shape: str, count: int) -> Floats:
    """Positions of a shape within +-0.5, sorted by x, an order that an inverted index does not scramble."""
    rng = np.random.default_rng(count)
    uniform, normal = rng.uniform(-0.5, 0.5, (count, 3)), rng.normal(size=(count, 3))
    ends = np.where(np.arange(count) % 2, 0.4, -0.4)[:, None] * [1.0, 0.0, 0.0]
    means = {
        "shell": 0.5 * normal / np.linalg.norm(normal, axis=1, keepdims=True),
        "volume": uniform,
        "ball": 0.1 * normal,
        "rod": uniform * [1.0, 0.05, 0.05],
        "needle": uniform[:, :1] * [1.0, 0.0, 0.0] + 0.002 * normal,
        "line": uniform[:, :1] * [1.0, 0.0, 0.0],
        "plate": uniform * [1.0, 0.8, 0.02],
        "plane": uniform * [1.0, 1.0, 0.0],
        "two clusters": ends + 0.01 * normal,
        "corner": 0.4 + 0.2 * uniform,
        "tall": uniform * [0.1, 0.1, 1.0],
    }[shape]
    return means[np.argsort(means[:, 0], kind="stable")]


def objects(files: list[Path]) -> Iterator[tuple[str, Gaussians]]:
    """Yield names and Gaussians: shapes of every count, then fits."""
    for count in COUNTS:
        for shape in SHAPES:
            # a full exact line is the solver's worst case (half a minute), and not a realistic object
            if shape == "line" and count > 10_435:
                continue
            rng = np.random.default_rng(1)
            quats = canonical_quats(rng.normal(size=(count, 4)))
            scales, looks = np.exp(rng.normal(-5, 0.7, (count, 3))), rng.uniform(0.05, 1, (count, 4))
            yield f"{shape} {count}", Gaussians(cloud(shape, count), scales, quats, looks[:, 0], looks[:, 1:])
    for file in (*files, *sorted(PUBLISHED.glob("*/point_cloud.ply"))):
        name = file.stem if file.suffix == ".npz" else file.parent.name
        yield f"fit {name}", Gaussians.load(file) if file.suffix == ".npz" else read_ply(file.read_bytes())


def inverse(permutation: Ints) -> Ints:
    inverted = np.empty_like(permutation)
    inverted[permutation] = np.arange(len(permutation))
    return inverted


def orders(gaussians: Gaussians) -> Iterator[tuple[str, Ints, npt.NDArray[np.bool_], Floats, float]]:
    """Yield name, source and liveness of each cell, its sphere point, and the cost of the transport."""
    sphere, plane = fibonacci_sphere(CELLS), plane_indices(SIZE)
    # sorted[k] = lattice[rank[k]]: the lattice's own order is by height
    rank = inverse(np.argsort(sphere[:, 1], kind="stable"))
    right = place(gaussians, sphere, AtlasConfig().pad)
    cost = right.transport.primal
    # Gaussians first, then padding: a permutation, which can be applied inverted
    listed = np.where(right.live, right.source, 0)
    listed[~right.live] = np.arange(len(gaussians), CELLS)
    swapped = inverse(listed)
    live = swapped < len(gaussians)
    shuffled = np.random.default_rng(0).permutation(CELLS)
    yield "right", right.source[plane], right.live[plane], sphere[plane], cost
    yield "sphere inverted", np.where(live, swapped, right.source)[plane], live[plane], sphere[plane], cost
    for name, order in {
        "plane inverted": inverse(plane),
        "plane forgotten": np.arange(CELLS),
        "sort forgotten": inverse(rank)[plane],
        "random": shuffled,
    }.items():
        yield name, right.source[order], right.live[order], sphere[order], cost


def measure(gaussians: Gaussians) -> dict[str, Numbers]:
    """Measure the three numbers for the right order and for each index error."""
    gaussians = gaussians[prune(gaussians, CELLS)]
    found = {}
    for name, source, live, points, cost in orders(gaussians):
        cells = np.argwhere(live.reshape(SIZE, SIZE))
        offsets = (gaussians.means[source] - points).astype(np.float32)[live].astype(np.float64)
        found[name] = {
            "position": smoothness(gaussians[source[live]], cells).position,
            "sphere": unrolled(points.reshape(SIZE, SIZE, 3)),
            "cost_error": abs(float((offsets**2).sum()) - cost) / cost,
        }
    return found


def refused(numbers: Numbers) -> bool:
    """Whether the gates of `atlas.gates` refuse an order."""
    return numbers["sphere"] < AtlasConfig().min_smoothness or numbers["cost_error"] > MAX_COST_ERROR


def summary(measured: dict[str, dict[str, Numbers]]) -> dict[str, object]:
    """Range of each number per order, and counts refused by the gates and by a threshold of 0.90."""
    table = {}
    for order in next(iter(measured.values())):
        rows = {name: found[order] for name, found in measured.items()}
        ranges = {
            number: [min(r[number] for r in rows.values()), max(r[number] for r in rows.values())]
            for number in ("position", "sphere", "cost_error")
        }
        table[order] = ranges | {
            "refused": sum(refused(r) for r in rows.values()),
            "position_below_0.90": sum(not r["position"] >= 0.90 for r in rows.values()),
            "of": len(rows),
        }
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fits", nargs="*", type=Path, help="fits: .npz of gaussianverse.fitter, or 3DGS .ply")
    files = parser.parse_args(arguments).fits
    measured = {}
    for name, gaussians in objects(files):
        measured[name] = measure(gaussians)
        orders_of = (f"{order} {n['position']:.3f}/{n['sphere']:.3f}" for order, n in measured[name].items())
        sys.stderr.write(f"{name}: {', '.join(orders_of)}\n")
    keep("gates", {"orders": summary(measured), "objects": measured})
    return 0


if __name__ == "__main__":
    sys.exit(main())
