"""Numba kernels with an on-disk cache that any change of their sources invalidates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import njit

from gaussianverse.atlas.kernel_cache import keep


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function as `numba.njit` does, with a cache that depends on the function's whole folder.

    Numba's own cache depends on the function's file alone, and would miss changes of functions and constants that
    are compiled in from other files. So the name of a cache entry includes a hash of all sources in the folder;
    a kernel may use functions and constants of its own folder only. Without sources (in a zip) nothing is cached.
    `kernel_cache` tells what becomes of a cache that is damaged or cannot be written.

    Args:
        options: options of `numba.njit` other than `cache`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        sources = _sources(Path(function.__code__.co_filename).parent)
        digest = hashlib.sha256(sources + json.dumps(options, default=sorted, sort_keys=True).encode())
        function.__qualname__ += f"_{digest.hexdigest()[:16]}"
        compiled = njit(**options)(function)
        return keep(compiled) if sources else compiled

    return decorate


@lru_cache
def _sources(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
