"""A fixed number of Gaussians per object (1,024, for instance), for models that operate on sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.padding import duplicates, prune


def fixed_count(gaussians: Gaussians, count: int) -> Gaussians:
    """Drop or duplicate Gaussians to get `count`, as an atlas does.

    Surplus Gaussians with the smallest mean scale are dropped; missing ones are appended as duplicates with
    opacity 0, see `atlas.padding.duplicates`.

    Raises:
        AtlasError: count < 1, or `gaussians` is empty.
    """
    if count < 1 or len(gaussians) == 0:
        raise AtlasError(f"cannot make {count} Gaussians of {len(gaussians)}; both must be at least 1")
    kept = gaussians[prune(gaussians, count)]
    filled = kept[np.concatenate([np.arange(len(kept)), duplicates(kept, count - len(kept))])]
    opacities = np.where(np.arange(count) < len(kept), filled.opacities, np.float32(0))
    return replace(filled, opacities=opacities.astype(np.float32))
