"""`make bench-gpu`: prove gsplat against the other backends, then measure the GPU profiles, in eight minutes.

Sections run in the order of their worth, each in a time of its own, and the result is written after each: a run that
is cut off keeps what it had. Fits are kept in the result, and a later run adds to them; `--only` chooses sections.
`--dry` runs all of this without a GPU, with small sizes, and gsplat's own torch code in the place of its kernels; its
numbers are marked dry and mean nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.gpu import fits, load, parity, steps
from bench.gpu.clock import Clock
from bench.gpu.settings import Weights, levers, profile
from bench.gpu.target import Target, standing_in
from bench.objects import SAMPLE
from bench.perceived import WEIGHTS
from bench.record import RESULTS, environment, write
from gaussianverse.fitter import FitConfig
from gaussianverse.fitter.rasterize import gsplat_build
from gaussianverse.pipeline.node import gpu

TOTAL_S = 470.0
DRY_S = 3600.0
DRY_FOLDER = Path("build/bench-gpu-dry")


@dataclass
class Bench:
    """One run: what it measures on, with what, and its result so far."""

    target: Target
    folders: list[Path]
    weights: Weights
    out: Path
    result: dict[str, Any]

    @property
    def rows(self) -> list[fits.Row]:
        """All fits, of this run and earlier ones."""
        rows: list[fits.Row] = self.result.setdefault("fits", [])
        return rows

    def pace(self) -> dict[str, float]:
        """Seconds of a step by setting, as far as section `steps` has measured them on this device."""
        rates = self.result.get("steps", {})
        known = {name: rates[name]["ms_per_step"] / 1e3 for name in ("fast", "paper") if name in rates}
        return {**known, "": known.get("fast", 0.0)}

    def fit(self, wanted: Iterator[tuple[str, FitConfig, Path, int]], clock: Clock) -> None:
        """Do fits while time is left, and write the result after each."""
        for _ in fits.add(self.rows, wanted, self.target, self.weights, clock, self.pace()):
            self.summarise()
            self.write()

    def summarise(self) -> None:
        """Renew the tables over all fits of this device."""
        mine = [row for row in self.rows if row["device"] == self.target.name]
        self.result["profiles"], self.result["levers"] = fits.profiles_table(mine), fits.levers_table(mine)

    def write(self) -> dict[str, Any]:
        """Write the result as it is."""
        return write("gpu", self.result, self.out)


def build(bench: Bench, clock: Clock) -> dict[str, Any]:
    """doctor's findings on the driver and the compilers, and the seconds to compile or load the kernels."""
    findings = [{"name": f.name, "ok": f.ok, "text": f.text} for f in gpu.examine()]
    start = clock.spent()
    if not bench.target.dry:
        gsplat_build.extension()
    return {"findings": findings, "kernels_s": clock.spent() - start}


def compare(bench: Bench, clock: Clock) -> dict[str, Any]:
    """Parity, and the golden file beside the result."""
    return parity.section(bench.target, bench.out)


def step_costs(bench: Bench, clock: Clock) -> dict[str, Any]:
    """Milliseconds of a step by profile, the profiler's tables, LPIPS by backbone."""
    configs = {name: profile(name, bench.weights) for name in ("fast", "paper")}
    found: dict[str, Any] = {}
    for name, config in configs.items():
        found[name] = steps.rate(bench.target, bench.folders[0], config) | {"lpips_net": config.loss.lpips_net}
    for name, config in configs.items():
        if clock.left():
            found[f"{name}_profile"] = steps.profiled(bench.target, bench.folders[0], config)
    if clock.left():
        found["lpips"] = steps.lpips_costs(bench.target)
    return found


def profiles(bench: Bench, clock: Clock) -> None:
    """Fits by both profiles: a few objects and all seeds first, then the other objects."""

    def wanted() -> Iterator[tuple[str, FitConfig, Path, int]]:
        configs = {name: profile(name, bench.weights) for name in ("fast", "paper")}
        some = bench.folders[: bench.target.sizes.objects[1]]
        pairs = [(folder, seed) for seed in range(bench.target.sizes.seeds) for folder in some]
        pairs += [(folder, 0) for folder in bench.folders[len(some) : bench.target.sizes.objects[0]]]
        for folder, seed in pairs:
            for name, config in configs.items():
                yield name, config, folder, seed

    bench.fit(wanted(), clock)


def move_levers(bench: Bench, clock: Clock) -> None:
    """Fits by `fast` and by each lever alone, object by object."""

    def wanted() -> Iterator[tuple[str, FitConfig, Path, int]]:
        settings = {"fast": profile("fast", bench.weights), **levers(bench.weights)}
        for folder in bench.folders[: bench.target.sizes.objects[1]]:
            for name, config in settings.items():
                yield name, config, folder, 0

    bench.fit(wanted(), clock)


def at_once(bench: Bench, clock: Clock) -> dict[str, Any]:
    """Fits at once in processes, then in threads."""
    config = profile("fast", bench.weights)
    found = {"processes": load.at_once(bench.target, bench.folders[0], config, clock)}
    return found | {"threads": load.streams(bench.target, bench.folders[0], config)} if clock.left() else found


def batches(bench: Bench, clock: Clock) -> dict[str, Any]:
    """Several scenes in one step."""
    return {"table": steps.batch(bench.target)}


def memory(bench: Bench, clock: Clock) -> dict[str, Any]:
    """Memory over many short fits in this process."""
    return load.growth(bench.target, bench.folders[0], profile("fast", bench.weights), clock)


SECTIONS: dict[str, tuple[float, Callable[[Bench, Clock], dict[str, Any] | None]]] = {
    "build": (240.0, build),
    "parity": (20.0, compare),
    "steps": (50.0, step_costs),
    "profiles": (200.0, profiles),
    "at_once": (70.0, at_once),
    "batch": (20.0, batches),
    "levers": (100.0, move_levers),
    "memory": (60.0, memory),
}
"""Sections in the order of their worth, with the seconds that each may take."""


def run(bench: Bench, chosen: list[str], seconds: float) -> None:
    """Run sections in so many seconds; one that fails says so in the result and the next begins.

    A section that runs alone may take all of the time.
    """
    total = Clock(seconds)
    for name in chosen:
        own, section = SECTIONS[name]
        clock = Clock(own if len(chosen) > 1 and not bench.target.dry else seconds, total)
        if not clock.left():
            sys.stderr.write(f"{name}: no time left; --only {name} runs it\n")
            continue
        sys.stderr.write(f"{name}: {clock.left():.0f} s\n")
        try:
            found = section(bench, clock)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
            sys.stderr.write(f"{name}: {found['error']}\n")
        if found is not None:
            bench.result[name] = found
        facts = environment()
        times = {"seconds": clock.spent(), "date": facts["date"], "commit": facts["commit"]}
        bench.result.setdefault("sections", {})[name] = times
        bench.write()


def failed(result: dict[str, Any], chosen: list[str]) -> list[str]:
    """Names of the chosen sections that ended with an error, and of comparisons that are out of bounds."""
    names = [name for name in chosen if "error" in (result.get(name) or {})]
    if "parity" in chosen and "parity" not in names:
        names += [f"parity.{name}" for name, found in result.get("parity", {}).items() if not found.get("ok", True)]
    return names


def begun(name: str, out: Path) -> dict[str, Any]:
    """The result to add to: that of the folder, or else the kept one, if it is of the same device."""
    for path in (out / "gpu.json", RESULTS / "gpu.json"):
        if path.is_file():
            result: dict[str, Any] = json.loads(path.read_text())
            if result.get("device") == name:
                return result
    return {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="without a GPU: gsplat's torch code, small sizes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--views", type=Path, nargs="*", help="view folders; default: the sample objects")
    parser.add_argument("--vgg", type=Path, help="VGG16's state dict; the paper's LPIPS needs it")
    parser.add_argument("--alexnet", type=Path, default=WEIGHTS, help="AlexNet's: LPIPS of results, and of `paper`")
    parser.add_argument("--seconds", type=float, help=f"to spend; default: {TOTAL_S:g}")
    parser.add_argument("--out", type=Path, help="folder of gpu.json and golden.npz; default: bench/results")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        sys.stderr.write(
            "error: torch finds no CUDA device; run this on a machine with an NVIDIA GPU, or with --dry\n"
        )
        return 1
    target = Target(options.dry)
    out = options.out or (DRY_FOLDER if options.dry else RESULTS)
    if options.dry:
        shutil.rmtree(DRY_FOLDER, ignore_errors=True)
    folders = options.views or sorted(p for p in SAMPLE.iterdir() if p.is_dir())
    chosen = [name for name in SECTIONS if not options.only or name in options.only]
    result = {**begun(target.name, out), "device": target.name, "dry": target.dry}
    bench = Bench(target, folders, Weights.of(options.vgg, options.alexnet), out, result)
    with standing_in(target):
        run(bench, chosen, options.seconds or (DRY_S if options.dry else TOTAL_S))
    faults = failed(result, chosen)
    sys.stdout.write(json.dumps(bench.write()) + "\n")
    for fault in faults:
        sys.stderr.write(f"error: {fault} failed; see {out / 'gpu.json'}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
