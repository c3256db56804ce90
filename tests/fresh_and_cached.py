"""Run a program twice, in a process that compiles the kernels and in one that finds them in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def fresh_and_cached(program: str, cache: Path) -> tuple[str, str]:
    """Output of `program` in the first and second run; `cache` is an empty folder."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here)])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": paths}
    command = [sys.executable, "-c", program]

    def run() -> tuple[str, dict[Path, int]]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout, {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}

    (fresh, made), (cached, found) = run(), run()
    assert made, "nothing was cached"
    assert found == made, "something was compiled again"
    return fresh, cached
