"""A fixed number of Gaussians for every object, as models on sets want it (1,024, say)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.padding import prune


def fixed_count(gaussians: Gaussians, count: int) -> Gaussians:
    """As many Gaussians as asked for, by the ranking that also bounds and fills an atlas.

    Above `count` those of smallest mean scale are dropped; below it duplicates of opacity 0 of those of
    smallest mean scale are put behind, and again from the start.

    Raises:
        AtlasError: count < 1, or no Gaussians.
    """
    if count < 1 or len(gaussians) == 0:
        raise AtlasError(f"cannot make {count} Gaussians of {len(gaussians)}")
    kept = gaussians[prune(gaussians, count)]
    missing = count - len(kept)
    smallest = np.argsort(kept.scales.astype(np.float64).mean(axis=1), kind="stable")
    filled = kept[np.concatenate([np.arange(len(kept)), np.resize(smallest, missing)])]
    opacities = np.where(np.arange(count) < len(kept), filled.opacities, np.float32(0))
    return replace(filled, opacities=opacities.astype(np.float32))
