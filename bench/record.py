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


def environment() -> dict[str, Any]:
    """Commit, processor, versions and load of this run."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Write bench/results/<name>.json and print the same JSON as the last line."""
    result = {**result, "environment": environment()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


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
