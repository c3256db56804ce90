"""Voxels that a mesh touches, by the separating axes of triangle and box (Akenine-Moeller, 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.posed import Surface

_REACH = 0.5
_EDGE = 1e-6  # a mesh that just reaches the ends of the cube lies this far inside, as for TRELLIS
_BATCH = 1 << 18  # pairs of triangle and voxel at once
_TOUCH = 1e-9  # in voxels; room for rounding

Floats = NDArray[np.float64]


def occupied(surface: Surface, side: int) -> NDArray[np.float32]:
    """Centres of the voxels of the cube [-0.5, 0.5]^3 that triangles touch, x slowest, float32 [N, 3].

    A triangle in the plane between two layers of voxels counts for the upper one.

    Args:
        surface: the mesh.
        side: voxels a side.

    Raises:
        LayoutError: the mesh reaches out of the cube.
    """
    used = surface.vertices[np.unique(surface.faces)].astype(np.float64)
    reach = float(np.abs(used).max())
    if reach > _REACH + _EDGE:
        raise LayoutError(
            f"voxels-{side}: the object reaches {reach:.3g} from the middle, and voxels fill a cube that ends at "
            f"{_REACH:g}; render with --extent 1"
        )
    inside = np.clip(surface.vertices.astype(np.float64), -_REACH + _EDGE, _REACH - _EDGE)
    corners = (inside[surface.faces] + _REACH) * side
    low = np.floor(corners.min(axis=1)).astype(np.int64)
    size = np.floor(corners.max(axis=1)).astype(np.int64) - low + 1
    n_voxels = size.prod(axis=1)
    found = np.zeros(side**3, bool)
    ends = np.cumsum(n_voxels)
    start = 0
    while start < len(corners):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BATCH, side="right")))
        triangle = np.repeat(np.arange(start, stop), n_voxels[start:stop])
        number = np.arange(len(triangle)) - np.repeat(
            ends[start:stop] - n_voxels[start:stop] - done, n_voxels[start:stop]
        )
        _, ny, nz = size[triangle].T
        voxel = low[triangle] + np.stack([number // (ny * nz), number // nz % ny, number % nz], axis=1)
        touched = voxel[_touch(corners[triangle] - (voxel + 0.5)[:, None])]
        found[(touched[:, 0] * side + touched[:, 1]) * side + touched[:, 2]] = True
        start = stop
    index = np.stack(np.unravel_index(np.flatnonzero(found), (side,) * 3), axis=1)
    return ((index + 0.5) / side - _REACH).astype(np.float32)


def _touch(corners: Floats) -> NDArray[np.bool_]:
    """Whether triangles [N, 3, 3] touch the box of side 1 at the origin, whose box theirs touches already."""
    edges = np.roll(corners, -1, axis=1) - corners
    together = np.ones(len(corners), bool)
    normal = np.cross(edges[:, 0], edges[:, 1])
    axes = [normal, *(np.cross(np.eye(3)[k], edges[:, side]) for k in range(3) for side in range(3))]
    for axis in axes:
        along = np.einsum("ncx,nx->nc", corners, axis)
        half = 0.5 * np.abs(axis).sum(axis=1) + _TOUCH
        together &= (along.min(axis=1) <= half) & (along.max(axis=1) >= -half)
    return together
