"""The representation: 3D Gaussians as a 128 x 128 image with 16 channels, and back; and the reader of datasets."""

from typing import TYPE_CHECKING, Any

from atlas.config import AtlasConfig
from atlas.gaussians import Gaussians
from atlas.packing import Atlas, pack, unpack

if TYPE_CHECKING:
    from atlas.loader import AtlasLoader
    from atlas.reader import AtlasDataset
    from atlas.standard import Standard, unpack_tensor
    from atlas.store import S3Options

__all__ = [
    "Atlas", "AtlasConfig", "AtlasDataset", "AtlasLoader", "Gaussians", "S3Options", "Standard", "pack", "unpack",
    "unpack_tensor",
]  # fmt: skip

# torch takes seconds to import, and making atlases does not need it
_LAZY = {
    "AtlasDataset": "atlas.reader",
    "AtlasLoader": "atlas.loader",
    "S3Options": "atlas.store",
    "Standard": "atlas.standard",
    "unpack_tensor": "atlas.standard",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'atlas' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
