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
    So the cache's entries are named after the sources of all files of its folder that have kernels.

    Args:
        options: of `numba.njit`, but for `cache`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        digest = hashlib.sha256(_sources(Path(function.__code__.co_filename).parent))
        digest.update(json.dumps(options, default=sorted, sort_keys=True).encode())
        function.__qualname__ += f"_{digest.hexdigest()[:16]}"
        return njit(cache=True, **options)(function)

    return decorate


@lru_cache
def _sources(folder: Path) -> bytes:
    files = (path.read_bytes() for path in sorted(folder.glob("*.py")))
    return b"\0".join(source for source in files if b"njit" in source or b"@kernel" in source)
