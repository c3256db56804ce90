"""Ranges of work over threads.

The kernels release the GIL, and what they compute does not depend on how the range is divided. They are not
Numba's own parallel loops: those are linked twice, and a process that compiled them runs another copy, with sums
in another order, than a process that found them in the cache; a fit would not repeat bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

# more pieces than threads, because some ranges are emptier than others
_PIECES_PER_THREAD = 4

_threads = 1
_pool: ThreadPoolExecutor | None = None


def available_cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use, at least 1: a container may have fewer than its machine.

    Args:
        limits: the cgroup's file of quota and period in microseconds (Linux, cgroup v2).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, limits.read_text().split())
    except (OSError, ValueError):  # no such limits here, or "max"
        return cores
    return max(1, min(cores, quota // period))


def set_threads(count: int) -> int:
    """Use `count` >= 1 threads from now on, in this process; returns the number before. It starts as one."""
    global _threads, _pool
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    before, _threads = _threads, count
    if _pool is not None:
        _pool.shutdown()
    _pool = ThreadPoolExecutor(count, "kernel") if count > 1 else None
    return before


def over_range(kernel: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Call kernel(first, last, *arguments) so that its ranges cover 0 to `count` once."""
    if _pool is None or count < 2:
        kernel(0, count, *arguments)
        return
    pieces = min(count, _PIECES_PER_THREAD * _threads)
    bounds = [count * k // pieces for k in range(pieces + 1)]
    futures = [_pool.submit(kernel, first, last, *arguments) for first, last in pairwise(bounds)]
    for future in futures:
        future.result()
