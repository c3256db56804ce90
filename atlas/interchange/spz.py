"""SPZ, the compact form that viewers in browsers read, about 16 bytes per Gaussian; encoded by GaussForge.

Positions are multiples of 1/4096, logarithms of scales multiples of 1/16, colours and opacities have 8 bits,
rotations 32. The format and its first code: https://github.com/nianticlabs/spz.
"""

from __future__ import annotations

from gaussforge import GaussForge

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import write_ply

_VERSION = 3
"""Of SPZ: the last that is gzipped, which more viewers read than version 4."""


def to_spz(gaussians: Gaussians) -> bytes:
    """Encode Gaussians; equal Gaussians give equal bytes.

    Raises:
        AtlasError: the library refuses them.
    """
    made = GaussForge().convert(write_ply(gaussians), "ply", "spz", spz_version=_VERSION)
    if "error" in made:
        raise AtlasError(f"SPZ cannot be written: {made['error']}")
    return bytes(made["data"])
