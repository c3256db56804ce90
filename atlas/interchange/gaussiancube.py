"""GaussianCube: the Gaussians of an object on a grid of 32 x 32 x 32 voxels with 14 channels.

The layout is that of the published training code (Zhang et al., "GaussianCube", NeurIPS 2024): voxel (i, j, k) is
at `linspace(-bound, bound, 32)[[i, j, k]]`; its channels are offset 3, constant spherical harmonic 3, opacity,
scale 3 and quaternion wxyz 4, the last three activated.

The transport here is exact, of all Gaussians at once; the published one sorts them and solves four problems of 8,192.
So a model is trained on cubes of one of the two, with their own mean and deviation.
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
BOUNDS = (0.45, 0.5, 1.0)
"""Half extents of published cubes: ShapeNet; Objaverse and avatars; OmniObject3D."""
PADDINGS = ("centre", "published")
"""What an empty voxel holds: an invisible Gaussian at its centre, or the published one at the corner of the grid."""
OFFSET = slice(0, 3)
HARMONIC = slice(3, 6)
OPACITY = 6
SCALE = slice(7, 10)
QUATERNION = slice(10, 14)

# An empty voxel holds a Gaussian of this scale, and with the published padding of this opacity.
_EMPTY_SCALE = 1e-6
_EMPTY_OPACITY = 1e-6
_EQUAL = 1e-9  # deviations of rounding only


def to_cube(gaussians: Gaussians, bound: float = BOUND, padding: str = "centre") -> FloatArray:
    """Assign the Gaussians to voxels by exact transport; the remaining voxels are empty.

    Args:
        gaussians: at least 1; above 32,768 those with the smallest mean scale are dropped.
        bound: half the grid's extent, see `BOUNDS`. Objects may extend beyond it.
        padding: one of `PADDINGS`.

    Returns:
        float32 [32, 32, 32, 14].

    Raises:
        TransportFailed: `gaussians` is empty, or the solver could not certify its answer.
        AtlasError: an unknown padding.
    """
    if padding not in PADDINGS:
        raise AtlasError(f"padding {padding!r}: expected one of {', '.join(PADDINGS)}")
    voxels = _voxels(bound)
    chosen = gaussians[prune(gaussians, len(voxels))]
    taken = assign(chosen.means, voxels).indices
    cube = np.zeros((len(voxels), CHANNELS), np.float32)
    cube[:, SCALE] = _EMPTY_SCALE
    cube[:, QUATERNION] = (1.0, 0.0, 0.0, 0.0)
    if padding == "published":
        cube[:, OFFSET] = bound - voxels
        cube[:, OPACITY] = _EMPTY_OPACITY
        cube[:, QUATERNION] = 0.5
    cube[taken, OFFSET] = chosen.means.astype(np.float64) - voxels[taken]
    cube[taken, HARMONIC] = (chosen.colors.astype(np.float64) - 0.5) / SH_C0
    cube[taken, OPACITY] = chosen.opacities
    cube[taken, SCALE] = chosen.scales
    cube[taken, QUATERNION] = chosen.quats
    return cube.reshape(SIDE, SIDE, SIDE, CHANNELS)


def from_cube(cube: npt.ArrayLike, bound: float = BOUND) -> Gaussians:
    """Unpack the Gaussians of a cube, voxel by voxel; those of opacity 0, or the published padding's, are empty.

    Raises:
        AtlasError: a wrong shape, or a value is not finite.
    """
    values = np.asarray(cube, np.float32)
    if values.shape != (SIDE, SIDE, SIDE, CHANNELS):
        raise AtlasError(f"a GaussianCube has shape {(SIDE, SIDE, SIDE, CHANNELS)}, got {values.shape}")
    flat = values.reshape(-1, CHANNELS)
    # not `>`, so that Gaussians refuses NaN
    faint, tiny = flat[:, OPACITY] == np.float32(_EMPTY_OPACITY), flat[:, SCALE] == np.float32(_EMPTY_SCALE)
    live = (flat[:, OPACITY] != 0) & ~(faint & tiny.all(axis=1))
    flat = flat[live]
    return Gaussians(
        means=(flat[:, OFFSET] + _voxels(bound)[live]).astype(np.float32),
        scales=flat[:, SCALE],
        quats=canonical_quats(flat[:, QUATERNION]),
        opacities=flat[:, OPACITY],
        colors=np.clip(0.5 + SH_C0 * flat[:, HARMONIC].astype(np.float64), 0.0, 1.0).astype(np.float32),
    )


class CubeMoments:
    """Mean and standard deviation of cubes, per voxel and channel."""

    def __init__(self) -> None:
        self.count = 0
        self._mean, self._m2 = np.zeros((2, SIDE, SIDE, SIDE, CHANNELS))

    def add(self, cube: FloatArray) -> None:
        """Add a cube."""
        self.count += 1
        delta = cube.astype(np.float64) - self._mean
        self._mean += delta / self.count
        self._m2 += delta * (cube - self._mean)

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean, float64 [32, 32, 32, 14]."""
        return self._mean.copy()

    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation, float64 [32, 32, 32, 14]; 1 where all cubes are equal, as loaders divide."""
        deviation = np.sqrt(self._m2 / max(self.count, 1))
        return np.where(deviation > _EQUAL, deviation, 1.0)


def _voxels(bound: float) -> npt.NDArray[np.float64]:
    """Centres of the voxels, x slowest, [32768, 3]."""
    steps = np.linspace(-bound, bound, SIDE)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
