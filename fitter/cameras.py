"""Cameras of views: what is refused, and which poses repeat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.errors import BadInput

_ROTATION_TOLERANCE = 1e-3
_SAME_POSE = 1e-6
_LENSES = (1e-2, 1e6)  # focal lengths in sides of the image: angles of 179 degrees to a fifth of a second
_SQUARE = 0.01  # largest deviation of the ratio of the focal lengths from 1
_LARGEST = 1e12  # largest entry of a camera: products of two stay finite in float32


def check_camera(c2w: NDArray[np.float64], K: NDArray[np.float64]) -> None:
    """Check a camera-to-world matrix [4, 4] and intrinsics [3, 3].

    Raises:
        BadInput: an entry is not finite or beyond 1e12, the pose is not a right-handed rotation with a translation
            (tolerance 1e-3), a focal length is not positive, or there is skew.
    """
    if not (np.isfinite(c2w).all() and np.isfinite(K).all()):
        raise BadInput("its pose or intrinsics have NaN or infinity; render it again or remove it")
    if max(np.abs(c2w).max(), np.abs(K).max()) > _LARGEST:
        raise BadInput(f"its pose or intrinsics have numbers beyond {_LARGEST:.0e}; use a larger unit of length")
    R = c2w[:3, :3]
    error, det = float(np.abs(R.T @ R - np.eye(3)).max()), float(np.cross(R[0], R[1]) @ R[2])
    if error > _ROTATION_TOLERANCE or det < 0 or (c2w[3] != (0, 0, 0, 1)).any():
        raise BadInput(
            "its pose is not a right-handed rotation with a translation "
            f"(det {det:+.4f}, R^T R - I up to {error:.1e}, last row {c2w[3].tolist()}); "
            "remove scale and mirroring from the camera matrix"
        )
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[0, 1] != 0 or K[1, 0] != 0 or (K[2] != (0, 0, 1)).any():
        raise BadInput(f"intrinsics are {K.tolist()}, expected focal lengths > 0, skew 0, last row 0 0 1")


def check_lens(K: NDArray[np.float64], width: int, height: int) -> None:
    """Check that the focal lengths are those of a lens, for an image of `width` x `height` pixels.

    Raises:
        BadInput: they are shorter or longer than `_LENSES` times the side.
    """
    for focal, side in ((K[0, 0], width), (K[1, 1], height)):
        if not _LENSES[0] <= focal / side <= _LENSES[1]:
            raise BadInput(
                f"its focal length is {focal:.3g} pixels, which is no lens for an image of {width} x {height}; check "
                "the unit of the camera's angles and lengths"
            )


def check_not_swapped(K: NDArray[np.float64], width: int, height: int, where: str) -> None:
    """Check intrinsics from two angles of view: their pixels may be no squares that swapped sizes would make squares.

    Raises:
        BadInput: they are those of an image of `height` x `width` pixels.
    """
    squareness = K[0, 0] / K[1, 1]
    swapped = squareness * (height / width) ** 2
    if abs(squareness - 1) > _SQUARE and abs(swapped - 1) <= _SQUARE:
        raise BadInput(
            f"{where}: its angles of view are those of an image of {height} x {width} pixels, and the image has "
            f"{width} x {height}; swap them, or set fit.inputs.sizes = 'keep' if its pixels are no squares"
        )


def distinct_poses(c2w: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the first of all poses [V, 4, 4] that are equal: axes within 1e-6, positions of their spread."""
    poses = c2w[:, :3].copy()
    farthest = float(np.abs(poses[..., 3]).max(initial=0))
    poses[..., 3] -= poses[..., 3].mean(0) if len(poses) else 0.0
    spread = float(np.linalg.norm(poses[..., 3], axis=1).max(initial=0))
    # cameras at one place have no spread, only rounding
    poses[..., 3] /= max(spread, min(1.0, farthest)) or 1.0
    rows = poses.reshape(len(poses), 12)
    # poses that are equal within the tolerance lie in the same cell along any line, or in the next one
    line = np.random.default_rng(0).uniform(-1, 1, 12)
    cells = np.floor(rows @ line / (_SAME_POSE * np.abs(line).sum())).astype(np.int64).tolist()
    kept: list[int] = []
    in_cell: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        near = [j for c in (cell - 1, cell, cell + 1) for j in in_cell.get(c, ())]
        if not near or (np.abs(rows[near] - rows[i]).max(axis=1) > _SAME_POSE).all():
            kept.append(i)
            in_cell.setdefault(cell, []).append(i)
    return np.array(kept, np.intp)
