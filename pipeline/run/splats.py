"""Stage 1 of an object that already consists of 3D Gaussians: read and check them instead of fitting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.atlas.interchange.published import find_order, read_point_cloud, swap_red_blue, visible
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR
from gaussianverse.manifests.splats import POINT_CLOUDS

FORMATS = (SPLATS, SPLATS_BGR)
"""Formats of manifest rows that are read here."""
SPHERE_INDICES = "gs2sphere.npy"


def read_splats(path: Path, format: str) -> tuple[Gaussians, dict[str, Any]]:
    """Read the Gaussians of a .ply file, or of a folder with a published pair.

    Sphere indices are checked and not used, since the atlas is built anew: if they do not match the Gaussians, one
    of the two files belongs to another object.

    Args:
        path: a .ply file, or a folder with point_cloud.ply or point_cloud.npy and perhaps gs2sphere.npy.
        format: one of `FORMATS`.

    Returns:
        The Gaussians without padding, and their n_gaussians and bbox_* for the tables.

    Raises:
        AtlasError: a file is missing or of another form.
        RoughAtlas: the sphere indices do not match the Gaussians.
    """
    gaussians, indices = _read(path)
    if indices is not None:
        # the publisher's sphere and plane, which may differ from this run's
        side = min(max(8, math.isqrt(len(gaussians))), 512)
        find_order(gaussians, indices, AtlasConfig(size=side))
    gaussians = gaussians[visible(gaussians)]
    if len(gaussians) == 0:
        raise AtlasError(f"{path}: all Gaussians are invisible")
    if format == SPLATS_BGR:
        gaussians = swap_red_blue(gaussians)
    low, high = gaussians.means.min(axis=0), gaussians.means.max(axis=0)
    return gaussians, {
        "n_gaussians": len(gaussians),
        **{f"bbox_min_{a}": float(v) for a, v in zip("xyz", low, strict=True)},
        **{f"bbox_max_{a}": float(v) for a, v in zip("xyz", high, strict=True)},
    }


def _read(path: Path) -> tuple[Gaussians, NDArray[Any] | None]:
    """The Gaussians, and the sphere indices if there are any."""
    if path.suffix == ".ply":
        return read_ply(_bytes_of(path)), None
    found = [path / name for name in POINT_CLOUDS if (path / name).exists()]
    if len(found) != 1:
        raise AtlasError(f"{path}: expected one of {' and '.join(POINT_CLOUDS)}, found {len(found)}")
    data = _bytes_of(found[0])
    gaussians = read_ply(data) if found[0].suffix == ".ply" else read_point_cloud(_array(data, found[0]))
    indices = path / SPHERE_INDICES
    return gaussians, _array(_bytes_of(indices), indices) if indices.exists() else None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AtlasError(f"{path}: cannot be read: {error.strerror}") from error


def _array(data: bytes, path: Path) -> NDArray[Any]:
    try:
        return read_npy(data)
    except AtlasError as error:
        raise AtlasError(f"{path}: {error}") from error
