"""Fit 3D Gaussians, build Gaussian atlases, publish them as WebDataset shards, and read them for training."""

from typing import TYPE_CHECKING

from gaussianverse.lazy import lazy

__version__ = "0.4.0"

if TYPE_CHECKING:
    from gaussianverse.atlas.reader.dataset import AtlasDataset
    from gaussianverse.atlas.reader.loader import AtlasLoader
    from gaussianverse.atlas.reader.mixture import Mixture

__all__ = ["AtlasDataset", "AtlasLoader", "Mixture", "__version__"]
__getattr__ = lazy(
    __name__,
    {"AtlasDataset": "atlas.reader.dataset", "AtlasLoader": "atlas.reader.loader", "Mixture": "atlas.reader.mixture"},
)
