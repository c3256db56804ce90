"""`make bench-atlas`: CPU seconds, memory and gap of the transport, complete packing, and scipy in the same run."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from bench.record import keep
from bench.scenes import surface
from gaussianverse.atlas import Gaussians, pack
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign

COUNTS = (4_000, 10_435, 16_384)
CELLS = 16_384
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ROUNDS = 3

# Run in a separate process: this one has loaded torch, and peaks never fall. Small solves first load the kernels.
_PEAK = """
import re
from pathlib import Path
import numpy as np
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign

def peak():
    return int(re.search("VmHWM: *([0-9]+) kB", Path("/proc/self/status").read_text().replace(chr(9), " "))[1])

sites = fibonacci_sphere(16_384)
points = np.random.default_rng(0).uniform(-0.5, 0.5, (16_384, 3))
assign(points[:300], sites[:400])
assign(points[:300], sites[:300])
before = peak()
assign(points, sites)
print(before, peak())
"""

Floats = npt.NDArray[np.float64]


def real(files: list[Path]) -> dict[str, Gaussians]:
    """Fits by name: the given files, and published ones if present."""
    found = {file.stem: Gaussians.load(file) for file in files}
    for file in sorted((SHARED / "gaussianverse_samples").glob("*/point_cloud.ply")):
        found[f"gaussianverse {file.parent.name}"] = read_ply(file.read_bytes())
    for file in sorted((SHARED / "splats_real").glob("*.ply")):
        found[file.stem] = read_ply(file.read_bytes())
    return found


def thinned(means: npt.NDArray[np.floating], count: int) -> Floats:
    """Random subset of positions, moved and scaled into +-0.5 if they are beyond it."""
    rows = np.sort(np.random.default_rng(count).permutation(len(means))[:count])
    positions = means[rows].astype(np.float64)
    low, high = positions.min(axis=0), positions.max(axis=0)
    if max(-low.min(), high.max()) > 0.6:
        positions = (positions - (low + high) / 2) / (high - low).max()
    return positions


def synthetic(count: int) -> dict[str, Floats]:
    rng = np.random.default_rng(count)
    uniform = rng.uniform(-0.5, 0.5, (count, 3))
    normal = rng.normal(size=(count, 3))
    return {
        "torus and ellipsoid": 0.48 * surface(count)[0].numpy().astype(np.float64),
        "shell": 0.5 * normal / np.linalg.norm(normal, axis=1, keepdims=True),
        "volume": uniform,
        "plate": uniform * [1.0, 0.8, 0.02],
        "rod": uniform * [0.03, 0.03, 1.0],
    }


def hard(count: int = 10_435) -> dict[str, Floats]:
    """Points with ties, degeneracy, and very different scales."""
    rng = np.random.default_rng(0)
    uniform = rng.uniform(-0.5, 0.5, (count, 3))
    cluster = 1e-3 * uniform
    cluster[: count // 200] = uniform[: count // 200]
    return {
        "duplicates x 4": np.repeat(uniform[: -(-count // 4)], 4, axis=0)[:count],
        "lattice ties": rng.integers(-10, 11, (count, 3)) / 20,
        "exact plane": uniform * [1.0, 1.0, 0.0],
        "exact line": uniform[:, :1] * [1.0, 0.6, 0.3],
        "off centre": uniform + np.array([0.4, 0.3, 0.2]),
        "99.5 % in a tiny cluster": cluster,
        "16,000 of 16,384": rng.uniform(-0.5, 0.5, (16_000, 3)),
    }


def solve(points: Floats, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median CPU seconds of this thread for one assignment, and its certificate."""
    sites = fibonacci_sphere(CELLS)
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        result = assign(points, sites)
        seconds.append(time.thread_time() - start)
    return {"n": len(points), "seconds": median(seconds), "rel_gap": result.rel_gap, "cost": result.primal}


def against_scipy(points: Floats) -> dict[str, Any]:
    """Run both solvers on the same points; scipy with its dense matrix of squared distances."""
    sites = fibonacci_sphere(CELLS)
    ours = solve(points, 1)
    start = time.thread_time()
    # -2 x . s has the order of the squared distance and avoids a second matrix
    matrix = points @ (-2.0 * sites.T)
    rows, columns = linear_sum_assignment(matrix)
    seconds = time.thread_time() - start
    cost = float(((points[rows] - sites[columns]) ** 2).sum())
    return {
        "n": len(points),
        "seconds": ours["seconds"],
        "scipy_seconds": seconds,
        "speedup": seconds / ours["seconds"],
        "relative_difference": abs(ours["cost"] - cost) / cost,
        "same_permutation": bool((assign(points, sites).indices == columns).all()),
    }


def whole(gaussians: Gaussians) -> dict[str, Any]:
    """CPU seconds of `pack`, including its gates."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        made = pack(gaussians)
        seconds.append(time.thread_time() - start)
    return {
        "n": made.stats["n_gaussians"],
        "seconds": median(seconds),
        "smoothness": made.stats["smoothness"],
        "transport_gap": made.stats["transport_gap"],
    }


def peak() -> dict[str, float]:
    """Peak resident megabytes of a fresh process that solves 16,384 on 16,384, and the share of the solve."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    before, after = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    return {"process_mb": after, "added_mb": after - before}


def collect(inputs: dict[str, Floats], work: Callable[[Floats], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    result = {}
    for name, points in inputs.items():
        result[name] = work(points)
        sys.stderr.write(f"{name}: {result[name]}\n")
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "fits",
        nargs="*",
        type=Path,
        help="fits (.npz of `python -m gaussianverse.fitter`) in addition to the published",
    )
    parser.add_argument("--scipy", action="store_true", help="also scipy at 10,435: four minutes and 2 GB")
    options = parser.parse_args(arguments)
    solve(synthetic(300)["volume"], 1)
    assign(synthetic(300)["volume"], fibonacci_sphere(300))

    fits = real(options.fits)
    of_fits = {
        f"{name} {count}": thinned(fit.means, count)
        for name, fit in fits.items()
        for count in sorted({*COUNTS, min(len(fit), CELLS)})
        if count <= len(fit)
    }
    result: dict[str, Any] = {"threads": 1, "rounds": ROUNDS, "real": collect(of_fits, solve)}
    result["synthetic"] = {str(count): collect(synthetic(count), solve) for count in COUNTS}
    result["hard"] = collect(hard(), lambda points: solve(points, 1))
    result["memory"] = peak()
    result["whole_atlas"] = {name: whole(fit) for name, fit in fits.items()}
    compared = {"scipy_4000": synthetic(4_000)["torus and ellipsoid"]}
    if options.scipy:
        compared["scipy_10435"] = next(
            (p for p in of_fits.values() if len(p) == 10_435), synthetic(10_435)["torus and ellipsoid"]
        )
    result["scipy"] = collect(compared, against_scipy)

    solved = [*result["real"].values(), *result["hard"].values()]
    solved += [r for rows in result["synthetic"].values() for r in rows.values()]
    for count in COUNTS[1:]:
        # a fit of 10,000 counts as one of 10,435
        seconds = [r["seconds"] for r in result["real"].values() if 0.95 * count <= r["n"] <= count]
        result[f"real_{count}_median_s"] = median(seconds) if seconds else None
    result["real_max_s"] = max((r["seconds"] for r in result["real"].values()), default=None)
    result["max_rel_gap"] = max(r["rel_gap"] for r in solved)
    result["peak_mb"] = result["memory"]["process_mb"]
    result["whole_atlas_s"] = max((r["seconds"] for r in result["whole_atlas"].values()), default=None)
    if options.scipy:
        result["speedup_scipy_10435"] = result["scipy"]["scipy_10435"]["speedup"]
    result["speedup_scipy_4000"] = result["scipy"]["scipy_4000"]["speedup"]
    keep("atlas", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
