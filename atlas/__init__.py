"""Gaussian atlases: 3D Gaussians as a 128 x 128 image with 16 channels, and the reader of published datasets."""

from typing import TYPE_CHECKING

from gaussianverse.lazy import lazy

if TYPE_CHECKING:
    from gaussianverse.atlas.config import AtlasConfig
    from gaussianverse.atlas.gaussians import Gaussians
    from gaussianverse.atlas.packing import Atlas, pack, unpack
    from gaussianverse.atlas.reader.dataset import AtlasDataset
    from gaussianverse.atlas.reader.loader import AtlasLoader
    from gaussianverse.atlas.reader.mixture import Mixture
    from gaussianverse.atlas.standard import Standard, unpack_tensor
    from gaussianverse.atlas.store.options import StoreOptions

__all__ = [
    "Atlas", "AtlasConfig", "AtlasDataset", "AtlasLoader", "Gaussians", "Mixture", "Standard", "StoreOptions", "pack",
    "unpack", "unpack_tensor",
]  # fmt: skip
__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(("Atlas", "pack", "unpack"), "atlas.packing"),
        **dict.fromkeys(("Standard", "unpack_tensor"), "atlas.standard"),
        "AtlasConfig": "atlas.config",
        "AtlasDataset": "atlas.reader.dataset",
        "AtlasLoader": "atlas.reader.loader",
        "Gaussians": "atlas.gaussians",
        "Mixture": "atlas.reader.mixture",
        "StoreOptions": "atlas.store.options",
    },
)
