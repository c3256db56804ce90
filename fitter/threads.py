"""Threads that run native kernels over parts of a range.

The kernels release the GIL, and their results do not depend on how the range is divided.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

# more pieces than threads, because pieces take different times
_PIECES_PER_THREAD = 4

_threads = 1
_pool: ThreadPoolExecutor | None = None


def available_cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores that this process may use, at least 1, within the limits of its container.

    Args:
        limits: the cgroup's file with quota and period in microseconds (Linux, cgroup v2).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, limits.read_text().split())
    except (OSError, ValueError):  # not cgroup v2, or "max"
        return cores
    return max(1, min(cores, quota // period))


def set_threads(count: int) -> int:
    """Set the number of threads of this process, >= 1, initially 1; returns the previous number."""
    global _threads, _pool
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 thread")
    before, _threads = _threads, count
    if _pool is not None:
        _pool.shutdown()
    _pool = ThreadPoolExecutor(count, "kernel") if count > 1 else None
    return before


def threads() -> int:
    """Number of threads of this process, as `set_threads` set it."""
    return _threads


def over_range(kernel: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Call kernel(first, last, *arguments) with ranges that together cover 0 to `count` once."""
    if _pool is None or count < 2:
        kernel(0, count, *arguments)
        return
    pieces = min(count, _PIECES_PER_THREAD * _threads)
    bounds = [count * k // pieces for k in range(pieces + 1)]
    futures = [_pool.submit(kernel, first, last, *arguments) for first, last in pairwise(bounds)]
    for future in futures:
        future.result()
