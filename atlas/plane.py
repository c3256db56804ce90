"""Plane indices: the sphere point of each cell of an atlas, the same for every object.

The sphere is unrolled equirectangularly and then transported onto the grid (paper section 4). A row of the
atlas is a longitude about z, from -180 to +180 degrees; a column is a sine of latitude, from +1 to -1. Index
files published with the paper's dataset follow the same convention: `plane[k] = sphere[plane_indices[k]]`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaussianverse import foreign
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.sphere import fibonacci_sphere, sphere_of
from gaussianverse.atlas.transport.solver import assign

DEFAULT_SIZE = 128
# Made by `python -m gaussianverse.atlas plane OUT.npy --size SIZE`; a test makes them again and compares.
SHIPPED_SHA256 = {
    128: "660b794e82b00de0b38aedf4ab5e3289b4e1bd10b8867462316ccfcb1114d1d9",
    192: "ba8b31fc648119731a9ab8ac16ca35e8f76d56ff063444a21a97717ac3bf31eb",
}
"""Hashes of the plane indices that ship, by size."""
SHIPPED = Path(__file__).parent / "data"

Indices = npt.NDArray[np.int64]


def plane_of(config: AtlasConfig) -> Indices:
    """Plane indices of a configuration: the default ones, those of its file, or 0, 1, 2, ... for layout "ring".

    Returns:
        int64 [size^2], read-only.

    Raises:
        AtlasError: see `read_plane_indices` and `plane_indices`.
    """
    if config.layout == "ring":
        indices = np.arange(config.size**2)
        indices.setflags(write=False)
        return indices
    if config.plane_indices:
        return read_plane_indices(config.plane_indices, config.size, config.plane_sha256)
    return plane_indices(config.size)


def points_of(config: AtlasConfig) -> npt.NDArray[np.float64]:
    """Sphere point of each cell of an atlas, row by row, [size^2, 3]."""
    return sphere_of(config)[plane_of(config)]


def pinned(config: AtlasConfig) -> AtlasConfig:
    """Add the SHA-256 of its plane indices file to a configuration, so that a record identifies the file.

    Raises:
        AtlasError: see `plane_of`.
    """
    if not config.plane_indices:
        return config
    data = _bytes_of(Path(config.plane_indices))
    recorded = replace(config, plane_sha256=config.plane_sha256 or hashlib.sha256(data).hexdigest())
    plane_of(recorded)
    return recorded


def read_plane_indices(path: str, size: int, sha256: str = "") -> Indices:
    """Read a file of plane indices, such as the published sphere2plane.npy.

    Args:
        path: a .npy file of size^2 integers, in one dimension or as a grid.
        size: side of the atlas.
        sha256: the expected SHA-256 of the file; "" accepts any.

    Returns:
        int64 [size^2], read-only.

    Raises:
        AtlasError: the file cannot be read, has another hash, or is not a permutation of 0 .. size^2 - 1.
    """
    data = _bytes_of(Path(path))
    digest = hashlib.sha256(data).hexdigest()
    if sha256 not in ("", digest):
        raise AtlasError(f"{path} has SHA-256 {digest}, expected {sha256}: pass the file that was used before")
    try:
        indices = read_npy(data)
    except AtlasError as error:
        raise AtlasError(f"{path}: {error}") from error
    if not np.issubdtype(indices.dtype, np.integer):
        raise AtlasError(f"{path}: plane indices are {indices.dtype}, expected integers")
    flat: Indices = indices.reshape(-1).astype(np.int64)
    if not np.array_equal(np.sort(flat), np.arange(size * size)):
        raise AtlasError(
            f"{path}: {len(flat)} indices, expected each of 0 to {size * size - 1} once for an atlas of size {size}"
        )
    flat.setflags(write=False)
    return flat


def _bytes_of(path: Path) -> bytes:
    try:
        return foreign.read_bytes(path)
    except OSError as error:
        raise AtlasError(f"plane indices {path} cannot be read: {error.strerror}") from error


def unroll(points: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Map unit vectors [n, 3] to (row, column) [n, 2] of a size x size grid, cell centres at integers."""
    row = (np.arctan2(points[:, 1], points[:, 0]) / (2.0 * np.pi) + 0.5) * size - 0.5
    column = (1.0 - points[:, 2]) / 2.0 * size - 0.5
    return np.stack([row, column], axis=1)


def solve_plane_indices(size: int) -> Indices:
    """Solve the transport of the unrolled sphere onto the grid.

    Args:
        size: side of the grid; the sphere has size^2 points.

    Returns:
        int64 [size^2], a permutation: the index of the sorted sphere's point in each cell, row by row.
    """
    sphere = unroll(fibonacci_sphere(size * size), size)
    cells = np.stack(np.divmod(np.arange(size * size), size), axis=1).astype(np.float64)
    flat = np.zeros((size * size, 1))
    cell_of_point = assign(np.hstack([sphere, flat]), np.hstack([cells, flat])).indices
    indices = np.empty(size * size, np.int64)
    indices[cell_of_point] = np.arange(size * size)
    return indices


@lru_cache(maxsize=4)
def plane_indices(size: int = DEFAULT_SIZE) -> Indices:
    """Default plane indices of a size: read from the shipped file for 128 and 192, solved and cached for others.

    Returns:
        int64 [size^2], read-only.

    Raises:
        AtlasError: the shipped file is missing or was changed.
    """
    indices = _shipped(size) if size in SHIPPED_SHA256 else solve_plane_indices(size)
    indices.setflags(write=False)
    return indices


def shipped_file(size: int) -> Path:
    """The file of plane indices that ships for a size of `SHIPPED_SHA256`."""
    return SHIPPED / f"plane_indices_fibonacci_{size}.npy"


def _shipped(size: int) -> Indices:
    path = shipped_file(size)
    remedy = f"reinstall the package, or make it again: python -m gaussianverse.atlas plane {path} --size {size}"
    if not path.exists():
        raise AtlasError(f"{path} is missing; {remedy}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHIPPED_SHA256[size]:
        raise AtlasError(f"{path} has SHA-256 {digest}, expected {SHIPPED_SHA256[size]}; {remedy}")
    indices: Indices = np.load(path, allow_pickle=False).astype(np.int64)
    return indices
