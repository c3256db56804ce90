"""The representation: 3D Gaussians as a 128 x 128 image with 16 channels, and back; and the reader of datasets."""

from typing import TYPE_CHECKING, Any

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.packing import Atlas, pack, unpack

if TYPE_CHECKING:
    from gaussianverse.atlas.reader.dataset import AtlasDataset
    from gaussianverse.atlas.reader.loader import AtlasLoader
    from gaussianverse.atlas.standard import Standard, unpack_tensor
    from gaussianverse.atlas.store.local import S3Options

__all__ = [
    "Atlas", "AtlasConfig", "AtlasDataset", "AtlasLoader", "Gaussians", "S3Options", "Standard", "pack", "unpack",
    "unpack_tensor",
]  # fmt: skip

# torch takes seconds to import, and making atlases does not need it
_LAZY = {
    "AtlasDataset": "gaussianverse.atlas.reader.dataset",
    "AtlasLoader": "gaussianverse.atlas.reader.loader",
    "S3Options": "gaussianverse.atlas.store.local",
    "Standard": "gaussianverse.atlas.standard",
    "unpack_tensor": "gaussianverse.atlas.standard",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'atlas' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
