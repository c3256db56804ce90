"""Fit 3D Gaussians, build Gaussian atlases, publish them as WebDataset shards, and read them for training."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gaussianverse.atlas.reader.dataset import AtlasDataset
    from gaussianverse.atlas.reader.loader import AtlasLoader

__all__ = ["AtlasDataset", "AtlasLoader", "__version__"]

# torch takes seconds to import, and a version number does not need it
_LAZY = {
    "AtlasDataset": "gaussianverse.atlas.reader.dataset",
    "AtlasLoader": "gaussianverse.atlas.reader.loader",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gaussianverse' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
