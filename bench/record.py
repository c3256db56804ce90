"""Shared by all benchmarks: where a benchmark ran, and how its result is kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numba", "numpy", "scipy", "ray", "gsplat", "pyarrow")


def cpu_model() -> str:
    """Name of the processor, from /proc/cpuinfo on Linux."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    """Version of an installed package; None where it is not installed, as Ray on a machine that only fits."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Commit of this checkout, with a mark if files were changed; "unknown" in a copy without its repository."""
    said = []
    for command in ("rev-parse HEAD", "status --porcelain"):
        try:
            done = subprocess.run(
                ["git", *command.split()], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        said.append(done.stdout.strip())
    return said[0] + ("+changes" if said[1] else "")


def environment() -> dict[str, Any]:
    """Commit, processor, versions and load of this run."""
    return {
        "commit": _commit(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> dict[str, Any]:
    """Write <name>.json, with the environment, to a folder; returns what was written."""
    result = {**result, "environment": environment()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def keep(name: str, result: dict[str, Any]) -> None:
    """Write bench/results/<name>.json and print the same JSON as the last line."""
    sys.stdout.write(json.dumps(write(name, result)) + "\n")


def interleaved(runs: dict[str, Callable[[], object]], rounds: dict[str, int]) -> dict[str, float]:
    """Median thread CPU milliseconds of each run; runs alternate, after one warm-up each."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(max(rounds.values())):
        for name, run in runs.items():
            if i < rounds[name]:
                start = time.thread_time()
                run()
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: median(values) for name, values in times.items()}
