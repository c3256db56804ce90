"""Numba kernels whose machine code is kept, and is not used any more once something that it was made of changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import njit


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a cache that knows the function's neighbours.

    Numba's own cache looks at the function's file alone. What is inlined into it and the constants that it reads
    from other files are compiled in, and would stay as they were after an upgrade that left this one file alone.
    So the cache's entries are named after the sources of the function's whole folder, from which alone it may take
    such things. Where there are no sources (in a zip) nothing is kept.

    Args:
        options: of `numba.njit`, but for `cache`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        sources = _sources(Path(function.__code__.co_filename).parent)
        digest = hashlib.sha256(sources + json.dumps(options, default=sorted, sort_keys=True).encode())
        function.__qualname__ += f"_{digest.hexdigest()[:16]}"
        return njit(cache=bool(sources), **options)(function)

    return decorate


@lru_cache
def _sources(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
