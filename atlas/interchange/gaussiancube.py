"""GaussianCube: the Gaussians of an object on a grid of 32 x 32 x 32 voxels with 14 channels.

The layout is that of the published training code (Zhang et al., "GaussianCube", NeurIPS 2024): voxel (i, j, k) is
at `linspace(-bound, bound, 32)[[i, j, k]]`; its channels are offset 3, constant spherical harmonic 3, opacity,
scale 3 and quaternion wxyz 4, the last three activated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import FloatArray, Gaussians, canonical_quats
from gaussianverse.atlas.interchange.harmonics import SH_C0
from gaussianverse.atlas.padding import prune
from gaussianverse.atlas.transport.solver import assign

SIDE = 32
CHANNELS = 14
BOUND = 0.45
OFFSET = slice(0, 3)
HARMONIC = slice(3, 6)
OPACITY = 6
SCALE = slice(7, 10)
QUATERNION = slice(10, 14)

# An empty voxel holds an invisible Gaussian of this scale at its centre.
_EMPTY_SCALE = 1e-6


def to_cube(gaussians: Gaussians, bound: float = BOUND) -> FloatArray:
    """Assign the Gaussians to voxels by exact transport; the remaining voxels are empty.

    Args:
        gaussians: at least 1; above 32,768 those with the smallest mean scale are dropped.
        bound: half the grid's extent; the published value is 0.45. Objects may extend beyond it.

    Returns:
        float32 [32, 32, 32, 14].

    Raises:
        TransportFailed: `gaussians` is empty, or the solver could not certify its answer.
    """
    voxels = _voxels(bound)
    chosen = gaussians[prune(gaussians, len(voxels))]
    taken = assign(chosen.means, voxels).indices
    cube = np.zeros((len(voxels), CHANNELS), np.float32)
    cube[:, SCALE] = _EMPTY_SCALE
    cube[:, QUATERNION] = (1.0, 0.0, 0.0, 0.0)
    cube[taken, OFFSET] = chosen.means.astype(np.float64) - voxels[taken]
    cube[taken, HARMONIC] = (chosen.colors.astype(np.float64) - 0.5) / SH_C0
    cube[taken, OPACITY] = chosen.opacities
    cube[taken, SCALE] = chosen.scales
    cube[taken, QUATERNION] = chosen.quats
    return cube.reshape(SIDE, SIDE, SIDE, CHANNELS)


def from_cube(cube: npt.ArrayLike, bound: float = BOUND) -> Gaussians:
    """Unpack the Gaussians of a cube, voxel by voxel; voxels with opacity 0 are empty.

    Raises:
        AtlasError: a wrong shape, or a value is not finite.
    """
    values = np.asarray(cube, np.float32)
    if values.shape != (SIDE, SIDE, SIDE, CHANNELS):
        raise AtlasError(f"a GaussianCube has shape {(SIDE, SIDE, SIDE, CHANNELS)}, got {values.shape}")
    flat = values.reshape(-1, CHANNELS)
    # not `> 0`, so that Gaussians refuses NaN
    live = flat[:, OPACITY] != 0
    flat = flat[live]
    return Gaussians(
        means=(flat[:, OFFSET] + _voxels(bound)[live]).astype(np.float32),
        scales=flat[:, SCALE],
        quats=canonical_quats(flat[:, QUATERNION]),
        opacities=flat[:, OPACITY],
        colors=np.clip(0.5 + SH_C0 * flat[:, HARMONIC].astype(np.float64), 0.0, 1.0).astype(np.float32),
    )


def _voxels(bound: float) -> npt.NDArray[np.float64]:
    """Centres of the voxels, x slowest, [32768, 3]."""
    steps = np.linspace(-bound, bound, SIDE)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
