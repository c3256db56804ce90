"""The representation: 3D Gaussians as a 128 x 128 image with 16 channels, and back."""

from atlas.config import AtlasConfig
from atlas.gaussians import Gaussians
from atlas.packing import Atlas, pack, unpack

__all__ = ["Atlas", "AtlasConfig", "Gaussians", "pack", "unpack"]
