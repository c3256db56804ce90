"""GaussianCube: the Gaussians of an object on a grid of 32 x 32 x 32 voxels with 14 channels.

The layout of the published training code (Zhang et al., "GaussianCube", NeurIPS 2024): voxel (i, j, k) stands at
`linspace(-bound, bound, 32)` of i, j, k along x, y, z; its channels are the offset 3, the constant spherical
harmonic 3, opacity, scale 3 and quaternion wxyz 4, the last three activated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import FloatArray, Gaussians, canonical_quats
from gaussianverse.atlas.interchange.ply import SH_C0
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

# An empty voxel: an invisible Gaussian of this scale in its middle.
_EMPTY_SCALE = 1e-6


def to_cube(gaussians: Gaussians, bound: float = BOUND) -> FloatArray:
    """Offset the Gaussians to voxels by exact transport; the voxels left over are empty.

    Args:
        gaussians: at least 1; above 32,768 those of smallest mean scale are dropped.
        bound: half the grid's extent; 0.45 is the published one. Objects may reach beyond it.

    Returns:
        float32 [32, 32, 32, 14].

    Raises:
        TransportFailed: no Gaussians, or the solver could not certify its answer.
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
    """The Gaussians of a cube, voxel by voxel; opacity 0 is an empty voxel.

    Raises:
        AtlasError: another shape, or a value is not finite.
    """
    values = np.asarray(cube, np.float32)
    if values.shape != (SIDE, SIDE, SIDE, CHANNELS):
        raise AtlasError(f"a GaussianCube is {(SIDE, SIDE, SIDE, CHANNELS)}, got {values.shape}")
    flat = values.reshape(-1, CHANNELS)
    # not `> 0`: NaN must come to the check in Gaussians
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
    """Middles of the voxels, x slowest, [32768, 3]."""
    steps = np.linspace(-bound, bound, SIDE)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
